-- Report how a replay ended, if it did not die again.
-- KEYS[1] the root of all keys
-- ARGV    id, replay, state ("resolved" or "open"), words
-- Returns "ok", or "stale" when the entry is not in this replay
local e = redis.call('HMGET', entry_key(ARGV[1]), 'state', 'replays', 'batch')
if e[1] ~= 'replaying' or e[2] ~= ARGV[2] then return 'stale' end
move(ARGV[1], ARGV[3])
note(ARGV[1], ARGV[3], ARGV[4])
redis.call('HSET', entry_key(ARGV[1]), 'failed_replays', 0)
if e[3] ~= '' then redis.call('HINCRBY', KEYS[1] .. ':batch:' .. e[3], ARGV[3], 1) end
return 'ok'

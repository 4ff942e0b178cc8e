-- Report how a replay ended, if it did not die again.
-- KEYS[1] the root of all keys
-- ARGV    id, replay, state ("resolved" or "open"), words
-- Returns "ok", or "stale" when the entry is not in this replay; one that was opened since nobody
--         knew what had become of it, still is
local e = redis.call('HMGET', entry_key(ARGV[1]), 'state', 'replays', 'batch', 'unsure')
local given_up = e[1] == 'open' and e[4] == ARGV[2]
if e[2] ~= ARGV[2] or not (e[1] == 'replaying' or given_up) then return 'stale' end
if e[1] ~= ARGV[3] then move(ARGV[1], ARGV[3]) end
note(ARGV[1], ARGV[3], ARGV[4])
redis.call('HSET', entry_key(ARGV[1]), 'failed_replays', 0)
redis.call('HDEL', entry_key(ARGV[1]), 'unsure')
if e[3] ~= '' then redis.call('HINCRBY', KEYS[1] .. ':batch:' .. e[3], ARGV[3], 1) end
return 'ok'

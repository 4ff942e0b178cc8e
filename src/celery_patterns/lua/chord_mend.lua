-- Replace the outcome of a part after its chord has ended.
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    task id, state, payload, reopen (1: the end is handed on once more if the part is ok now)
-- Returns {"mended" or "reopened", total, ok, failed, revoked, lost}; {"ok"} when it was ok before;
--         {"live"} while the chord goes on; {"unknown"} when there is no such chord or part (any more)
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended')
local slot = redis.call('HGET', KEYS[2], ARGV[1])
if chord[1] and not chord[2] then return {'live'} end
if not chord[1] or not slot then return {'unknown'} end
local index, before = string.match(slot, '^(%d+) (%l+)')
if before == 'ok' then return {'ok'} end
redis.call('HSET', KEYS[2], ARGV[1], index .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
redis.call('HINCRBY', KEYS[1], before, -1)
redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
local reopened = ARGV[2] == 'ok' and ARGV[4] == '1'
if reopened then redis.call('HDEL', KEYS[1], 'ended') end
return {reopened and 'reopened' or 'mended',
  unpack(redis.call('HMGET', KEYS[1], 'total', 'ok', 'failed', 'revoked', 'lost'))}

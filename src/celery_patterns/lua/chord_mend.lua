-- Replace the outcome of a part that was run again after its chord had ended.
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    task id, state, payload, needed (with so many good parts the end is handed on once more; -1: never),
--         another id for the body, if it has run
-- Returns {"mended" or "reopened", total, ok, failed, revoked, lost}; {"ok"} when it was ok before;
--         {"live"} while the chord goes on; {"unknown"} when there is no such chord or part (any more)
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended')
local slot = redis.call('HGET', KEYS[2], ARGV[1])
if chord[1] and not chord[2] then return {'live'} end
if not chord[1] or not slot then return {'unknown'} end
redis.call('HDEL', KEYS[1], 'again:' .. ARGV[1])
local index, before = string.match(slot, '^(%d+) (%l+)')
if before == 'ok' then return {'ok'} end
redis.call('HSET', KEYS[2], ARGV[1], index .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
redis.call('HINCRBY', KEYS[1], before, -1)
redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
local counts = redis.call('HMGET', KEYS[1], 'total', 'ok', 'failed', 'revoked', 'lost')
local needed = tonumber(ARGV[4])
if ARGV[2] ~= 'ok' or needed < 0 or tonumber(counts[2]) < needed then return {'mended', unpack(counts)} end
redis.call('HDEL', KEYS[1], 'ended')
if chord[2] == 'ran' then redis.call('HSET', KEYS[1], 'body', ARGV[5]) end
return {'reopened', unpack(counts)}

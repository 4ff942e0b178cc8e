-- Write down what became of a part. The first word counts; only "lost" is a belief, which a report corrects.
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    task id, state, payload, ttl_ms
-- Returns {"live", total, ok, failed, revoked, lost}; {"late"} after the chord has ended;
--         {"unknown"} when there is no such chord (any more), or no such part of it
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended')
local slot = redis.call('HGET', KEYS[2], ARGV[1])
if chord[2] then return {'late'} end
if not chord[1] or not slot then return {'unknown'} end
local index, before = string.match(slot, '^(%d+) ?(%l*)')
if before == '' or before == 'running' or (before == 'lost' and ARGV[2] ~= 'lost') then
  redis.call('HSET', KEYS[2], ARGV[1], index .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
  redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
  if before == 'lost' then redis.call('HINCRBY', KEYS[1], 'lost', -1) end
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return {'live', unpack(redis.call('HMGET', KEYS[1], 'total', 'ok', 'failed', 'revoked', 'lost'))}

-- Write down what became of a part. The first word counts; but "lost" is a belief, which a report corrects, and
-- the report of a part that was run again after a bad end replaces that.
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    task id, state, payload, ttl_ms
-- Returns {"live", total, ok, failed, revoked, lost}; {"late"} after the chord has ended,
--         {"again", total} if the part was run again meanwhile; {"unknown"} when there is no such chord (any more), or no such part of it
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended')
local slot = redis.call('HGET', KEYS[2], ARGV[1])
local again = 'again:' .. ARGV[1]
if chord[2] then
  if redis.call('HEXISTS', KEYS[1], again) == 1 then return {'again', chord[1]} end
  return {'late'}
end
if not chord[1] or not slot then return {'unknown'} end
local index, before = string.match(slot, '^(%d+) ?(%l*)')
local first = before == '' or before == 'running'
local better = before == 'lost' and ARGV[2] ~= 'lost'
if first or better or (before ~= 'ok' and redis.call('HDEL', KEYS[1], again) == 1) then
  redis.call('HSET', KEYS[2], ARGV[1], index .. ' ' .. ARGV[2] .. ' ' .. ARGV[3])
  redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
  if not first then redis.call('HINCRBY', KEYS[1], before, -1) end
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return {'live', unpack(redis.call('HMGET', KEYS[1], 'total', 'ok', 'failed', 'revoked', 'lost'))}

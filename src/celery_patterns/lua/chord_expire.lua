-- Give up what has not reported, if the deadline has passed.
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    payload of a lost part
-- Returns {"live", total, ok, failed, revoked, lost}, also before the deadline if every part has reported;
--         {"early", ms} while the deadline is ahead and parts are missing; {"late"} after the chord has ended;
--         {"unknown"} when there is no such chord (any more)
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended', 'due', 'ok', 'failed', 'revoked', 'lost')
if chord[2] then return {'late'} end
if not chord[1] then return {'unknown'} end
local missing = tonumber(chord[1])
for i = 4, 7 do missing = missing - (chord[i] or 0) end
if chord[3] and missing > 0 then
  local left = chord[3] - math.floor(now_us() / 1000)
  if left > 0 then return {'early', left} end
  local slots, lost = redis.call('HGETALL', KEYS[2]), 0
  for i = 1, #slots, 2 do
    local index = string.match(slots[i + 1], '^(%d+)$') or string.match(slots[i + 1], '^(%d+) running$')
    if index then
      redis.call('HSET', KEYS[2], slots[i], index .. ' lost ' .. ARGV[1])
      lost = lost + 1
    end
  end
  redis.call('HINCRBY', KEYS[1], 'lost', lost)
end
return {'live', unpack(redis.call('HMGET', KEYS[1], 'total', 'ok', 'failed', 'revoked', 'lost'))}

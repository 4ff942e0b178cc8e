-- Revoke what has not started, once (fail_fast).
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    payload of a revoked part
-- Returns {"live", total, ok, failed, revoked, lost}, and the first time after that: the steps that
--         lead to parts (JSON, or nil), then the ids of the parts that were revoked here;
--         {"late"} after the chord has ended; {"unknown"} when there is no such chord (any more)
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended')
if chord[2] then return {'late'} end
if not chord[1] then return {'unknown'} end
local first, revoked = redis.call('HSETNX', KEYS[1], 'revoked_rest', 1) == 1, {}
if first then
  local slots = redis.call('HGETALL', KEYS[2])
  for i = 1, #slots, 2 do
    if string.match(slots[i + 1], '^%d+$') then
      redis.call('HSET', KEYS[2], slots[i], slots[i + 1] .. ' revoked ' .. ARGV[1])
      revoked[#revoked + 1] = slots[i]
    end
  end
  redis.call('HINCRBY', KEYS[1], 'revoked', #revoked)
end
local answer = {'live', unpack(redis.call('HMGET', KEYS[1], 'total', 'ok', 'failed', 'revoked', 'lost'))}
if first then
  answer[7] = redis.call('HGET', KEYS[1], 'steps')
  for i = 1, #revoked do answer[7 + i] = revoked[i] end
end
return answer

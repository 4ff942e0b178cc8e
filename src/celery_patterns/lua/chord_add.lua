-- Add a part, behind all others.
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    task id
-- Returns 1, also when it was added before; 0 when the chord has ended or there is none
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended')
if chord[2] or not chord[1] then return 0 end
if redis.call('HSETNX', KEYS[2], ARGV[1], chord[1]) == 1 then
  redis.call('HINCRBY', KEYS[1], 'total', 1)
  redis.call('PEXPIRE', KEYS[2], redis.call('PTTL', KEYS[1]))
end
return 1

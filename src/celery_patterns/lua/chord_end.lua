-- Write down that the end of a chord was handed on. The chord is known for as long as its deadline's task may ask.
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    claim token, ttl_ms, keep (1: keep the parts, since some are not ok and may be mended),
--         "ran" or "failed": what became of the body
-- Returns 1; 0 when the claim is another's by now
if redis.call('HGET', KEYS[1], 'claim') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'ended', ARGV[4])
redis.call('HDEL', KEYS[1], 'claim', 'until', 'steps')
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if ARGV[3] == '1' then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
else
  redis.call('DEL', KEYS[2])
end
return 1

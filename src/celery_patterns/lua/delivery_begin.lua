-- Count the deliveries of a task that began its body and vanished, and begin one more.
-- KEYS[1] a hash: delivery -> until when it is known to live (ms)
-- ARGV    delivery, max_deliveries, lease_ms, keep_ms
-- Returns {"begun"}; {"poison", how many have vanished} when that is max_deliveries or more;
--         {"unsure", ms} when it may be so, and will be known by then
local now = math.floor(now_us() / 1000)
-- A process that dies before the worker's parent knows that it has begun: the same delivery is given to another.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then
  redis.call('HSET', KEYS[1], ARGV[1] .. '~' .. string.format('%.0f', now_us()), string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
local all = redis.call('HGETALL', KEYS[1])
local vanished, living, known = 0, 0, nil
for i = 1, #all, 2 do
  local left = tonumber(all[i + 1]) - now
  if left <= 0 then
    vanished = vanished + 1
  else
    living = living + 1
    known = math.min(known or left, left)
  end
end
local most = tonumber(ARGV[2])
if vanished >= most then return {'poison', vanished} end
if vanished + living >= most then return {'unsure', known} end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'begun'}

-- Count the deliveries of a task that began its body and vanished, and begin one more.
-- KEYS[1] a hash: delivery -> until when it is known to live (ms)
-- ARGV    delivery, max_deliveries, lease_ms, keep_ms
-- Returns how many have vanished; the body may run if that is less than max_deliveries
local now = math.floor(now_us() / 1000)
local all = redis.call('HGETALL', KEYS[1])
local vanished = 0
for i = 1, #all, 2 do
  if all[i] ~= ARGV[1] and tonumber(all[i + 1]) <= now then vanished = vanished + 1 end
end
if vanished < tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', now + ARGV[3]))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return vanished

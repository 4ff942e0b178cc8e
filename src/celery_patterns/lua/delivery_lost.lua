-- The process of a delivery is gone: if its body had begun, it vanished.
-- KEYS[1] the hash of delivery_begin.lua
-- ARGV    delivery, keep_ms
-- Returns 1, or 0 when its body had not begun
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', math.floor(now_us() / 1000)))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1

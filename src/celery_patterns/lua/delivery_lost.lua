-- The process of a delivery is gone: it vanished.
-- KEYS[1] the hash of delivery_begin.lua
-- ARGV    delivery, keep_ms
-- Returns 1
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', math.floor(now_us() / 1000)))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1

-- A delivery is alive.
-- KEYS[1] the hash of delivery_begin.lua
-- ARGV    delivery, lease_ms, keep_ms
-- Returns "ok", or "lost" when its task has reported an end meanwhile
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return 'lost' end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', math.floor(now_us() / 1000) + ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 'ok'

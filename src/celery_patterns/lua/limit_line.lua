-- Stand in a bucket's line; learn how long to pause, so that all who stand there ask at a bounded pace.
-- KEYS[1] the line: the waiting, by the time at which each will ask again
-- ARGV    who waits, wait_us (until there is a token), longest_us, asks (a second, of all together),
--         chance (0 to 1000000)
-- Returns {pause in us, how many stand in line}
-- A short line comes when there is a token, or after longest_us. One that would ask more often than
-- that spreads: its pauses are that long on the average, and even otherwise.
local now = now_us()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREM', KEYS[1], ARGV[1])
local crowd = redis.call('ZCARD', KEYS[1]) + 1
local pause, even = math.min(ARGV[2], ARGV[3]), crowd * 1000000 / ARGV[4]
if even > pause then pause = pause + math.floor(2 * (even - pause) * ARGV[5] / 1000000) end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + pause), ARGV[1])
local keep = math.ceil(pause / 1000) + 1000
if redis.call('PTTL', KEYS[1]) < keep then redis.call('PEXPIRE', KEYS[1], keep) end
return {pause, crowd}

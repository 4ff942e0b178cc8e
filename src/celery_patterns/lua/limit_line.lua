-- Stand in a bucket's line; learn how long to pause, so that all who stand there ask at a bounded pace.
-- KEYS[1] the line: the waiting by the time at which each will ask again; and ":", the last time given out
-- ARGV    who waits, wait_us (until there is a token), longest_us, gap_us (between two who ask)
-- Returns {pause in us, how many stand in line}
-- Nobody comes before there is a token, nor later than after longest_us; unless the line is so long
-- that with a gap between each two it takes longer to come round.
local now = now_us()
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZREM', KEYS[1], ARGV[1])
local last = redis.call('ZSCORE', KEYS[1], ':')
local crowd = redis.call('ZCARD', KEYS[1]) + (last and 0 or 1)
local soonest = now + math.min(ARGV[2], ARGV[3])
local turn = (last or 0) + ARGV[4]
if turn < soonest or turn > now + math.max(ARGV[3], crowd * ARGV[4]) then turn = soonest end
redis.call('ZADD', KEYS[1], string.format('%.0f', turn), ARGV[1], string.format('%.0f', turn), ':')
local keep = math.ceil((turn - now) / 1000) + 1000
if redis.call('PTTL', KEYS[1]) < keep then redis.call('PEXPIRE', KEYS[1], keep) end
return {turn - now, crowd}

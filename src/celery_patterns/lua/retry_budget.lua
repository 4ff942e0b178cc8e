-- Pay into a retry budget, or spend one retry.
-- KEYS[1] a hash: balance (millionths of a retry; below 0 is debt) and at (us)
-- ARGV    paid in (millionths of a retry), rate (retries per 1000 s), retries to spend (0 or 1)
-- Returns the ms until the debt is paid off; 0 without debt.
-- Asking again after a lost reply spends twice, which stretches later delays by one retry.
local b = redis.call('HMGET', KEYS[1], 'balance', 'at')
local now, rate = now_us(), ARGV[2] / 1000
local most = 10 * rate * 1000000
local balance = b[1] and tonumber(b[1]) + (now - b[2]) * rate or most
balance = math.min(most, balance + ARGV[1]) - ARGV[3] * 1000000
redis.call('HSET', KEYS[1], 'balance', string.format('%.0f', balance), 'at', string.format('%.0f', now))
local wait_ms = math.max(0, math.ceil(-balance / rate / 1000))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', wait_ms + 60000))
return wait_ms

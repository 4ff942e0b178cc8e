-- Set what is set at run time for one name: its rate, its burst, until when it is closed.
-- KEYS[1] steering
-- ARGV    name, n, per_us, burst, closed_us from now; each "" to leave it as it is, 0 to take it back
-- Returns what is set now: "n per burst closed"
local n, per, burst, closed =
  string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '0 0 0 0', '^(%d+) (%d+) (%d+) (%d+)$')
if ARGV[2] ~= '' then n, per = ARGV[2], ARGV[3] end
if ARGV[4] ~= '' then burst = ARGV[4] end
if ARGV[5] == '0' then closed = '0' end
if ARGV[5] ~= '' and ARGV[5] ~= '0' then
  closed = string.format('%.0f', math.max(closed, now_us() + ARGV[5]))
end
local all = table.concat({n, per, burst, closed}, ' ')
if n == '0' and burst == '0' and closed == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], all)
end
return all

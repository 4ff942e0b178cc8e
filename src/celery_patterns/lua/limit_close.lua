-- Close buckets for a while, as the service behind them asked; whoever asks waits until then.
-- KEYS[1] and more: the buckets
-- ARGV    us from now; 0 to open them
-- Returns "ok"
local now = now_us()
for _, key in ipairs(KEYS) do
  local tat, frac, closed, rest = string.match(redis.call('GET', key) or '0 0 0 1 1 0', '^(%d+) (%d+) (%d+) (.*)$')
  closed = ARGV[1] == '0' and 0 or math.max(closed, now + ARGV[1])
  local full = math.ceil((math.max(closed, tat) - now) / 1000) + 1000
  redis.call('PSETEX', key, math.max(1, full), string.format('%s %s %.0f %s', tat, frac, closed, rest))
end
return 'ok'

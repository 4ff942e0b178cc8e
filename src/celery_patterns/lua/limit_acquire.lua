-- Take tokens from k limits: from all of them, or from none.
-- KEYS[1] steering, by name: "n per burst closed", each 0 unless set; under ":" a factor "num den"
-- KEYS[2] the operation; KEYS[3..k+2] the buckets; then the log of each strict limit
-- ARGV    the k names; then for each limit n, per_us (n tokens in so long), burst, cost, and which of
--         KEYS is its log (0: it has none)
-- Returns the server's time in us: granted then, also when the same operation asks again
--         {"wait", us, which limit, us per token}: nothing was taken; the longest of the limits' waits
--         {"version"}: a newer version of the library wrote a bucket
-- A bucket is "tat frac closed n per burst": it is full again at tat + frac/n us, and nobody passes until
-- closed. Its debt counts in 1/n us, in which a token is per: so every sum is one of whole numbers.
local k = #ARGV / 6
local held = redis.call('MGET', unpack(KEYS, 2, k + 2))
if held[1] then return tonumber(held[1]) end
local set = redis.call('HMGET', KEYS[1], ':', unpack(ARGV, 1, k))
local now = now_us()
local longest, which, pace = 0, 0, 0
local debts, counts = {}, {}
for i = 1, k do
  local a = k + 5 * i
  local n, per, burst, cost, log = ARGV[a - 4], ARGV[a - 3], ARGV[a - 2], ARGV[a - 1], ARGV[a]
  local debt, wait = 0, 0
  if set[i + 1] then
    local n1, per1, burst1, closed = string.match(set[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
    if n1 ~= '0' then n, per = n1, per1 end
    if burst1 ~= '0' then burst = string.format('%.0f', math.max(burst1, cost)) end
    wait = closed - now
  end
  local num, den = 1, 1
  if set[1] then num, den = string.match(set[1], '^(%d+) (%d+)$') end
  if log ~= '0' then
    counts[i] = {math.max(cost, math.floor(n * num / den)), per}
    local last = redis.call('LINDEX', KEYS[tonumber(log)], counts[i][1] - cost)
    if last then wait = math.max(wait, last + per - now) end
  end
  if set[1] then n, per = string.format('%.0f', n * num), string.format('%.0f', per * den) end
  if held[i + 1] then
    local tat, frac, closed, n0, per0 = string.match(held[i + 1], '^(%d+) (%d+) (%d+) (%d+) (%d+) %d+$')
    if not tat then return {'version'} end
    debt = (tat - now) * n0 + frac
    if debt < 0 then debt = 0
    elseif n0 ~= n or per0 ~= per then debt = math.ceil(debt * per / per0) + 2 end -- rounded up
    if closed ~= '0' and closed - now > wait then wait = closed - now end
  end
  debt = debt + cost * per
  local over = debt - burst * per
  if over > 0 and over > wait * n then wait = math.ceil(over / n) end
  if wait > longest then longest, which, pace = wait, i, math.ceil(per / n) end
  debts[i], ARGV[a - 4], ARGV[a - 3], ARGV[a - 2] = debt, n, per, burst
end
if longest > 0 then return {'wait', longest, which, pace} end
local stamp = string.format('%.0f', now)
for i = 1, k do
  local a = k + 5 * i
  local n = ARGV[a - 4]
  local frac = debts[i] % n
  local left = (debts[i] - frac) / n
  redis.call('PSETEX', KEYS[i + 2], math.ceil(left / 1000) + 1000,
    string.format('%.0f %.0f 0 %s %s %s', now + left, frac, n, ARGV[a - 3], ARGV[a - 2]))
  if counts[i] then
    local log = KEYS[tonumber(ARGV[k + 5 * i])]
    for _ = 1, ARGV[k + 5 * i - 1] do redis.call('LPUSH', log, stamp) end
    redis.call('LTRIM', log, 0, counts[i][1] - 1)
    redis.call('PEXPIRE', log, math.ceil(counts[i][2] / 1000) + 1000)
  end
end
redis.call('PSETEX', KEYS[2], 10000, stamp)
return now

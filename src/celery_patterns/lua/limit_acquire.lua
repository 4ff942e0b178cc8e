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
local debts, shut, changed, logs = {}, {}, {}, {}

local function put(i, debt, closed)
  local n, per, burst = ARGV[k + 5 * i - 4], ARGV[k + 5 * i - 3], ARGV[k + 5 * i - 2]
  local frac = debt % n
  local left = (debt - frac) / n
  redis.call('PSETEX', KEYS[i + 2], math.ceil(math.max(left, closed - now) / 1000) + 1000,
    string.format('%.0f %.0f %s %s %s %s', now + left, frac, closed, n, per, burst))
end

for i = 1, k do
  local a = k + 5 * i
  local n, per, burst, cost, log = ARGV[a - 4], ARGV[a - 3], ARGV[a - 2], ARGV[a - 1], tonumber(ARGV[a])
  local debt, wait = 0, 0
  if set[i + 1] then
    local n1, per1, burst1, closed = string.match(set[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
    if n1 ~= '0' then n, per = n1, per1 end
    if burst1 ~= '0' then burst = string.format('%.0f', math.max(burst1, cost)) end
    wait = closed - now
  end
  local num, den = 1, 1
  if set[1] then num, den = string.match(set[1], '^(%d+) (%d+)$') end
  if log > 0 then
    logs[i] = {KEYS[log], math.max(cost, math.floor(n * num / den)), per}
    local last = redis.call('LINDEX', KEYS[log], logs[i][2] - cost)
    if last then wait = math.max(wait, last + per - now) end
  end
  if set[1] then n, per = string.format('%.0f', n * num), string.format('%.0f', per * den) end
  ARGV[a - 4], ARGV[a - 3], ARGV[a - 2] = n, per, burst
  if held[i + 1] then
    local tat, frac, closed, n0, per0 = string.match(held[i + 1], '^(%d+) (%d+) (%d+) (%d+) (%d+) %d+$')
    if not tat then return {'version'} end
    debt, shut[i] = math.max(0, (tat - now) * n0 + frac), closed
    if debt > 0 and (n0 ~= n or per0 ~= per) then -- the tokens that it lacks stay; rounded up
      debt = math.ceil(debt * per / per0) + 2
      changed[i] = debt
    end
    wait = math.max(wait, closed - now)
  end
  debts[i] = debt + cost * per
  wait = math.max(wait, math.ceil((debts[i] - burst * per) / n))
  if wait > longest then longest, which, pace = wait, i, math.ceil(per / n) end
end

if longest > 0 then
  for i, debt in pairs(changed) do put(i, debt, shut[i]) end -- from now on it fills at the new rate
  return {'wait', longest, which, pace}
end
local stamp = string.format('%.0f', now)
for i = 1, k do
  put(i, debts[i], '0')
  if logs[i] then
    local log, count, per = unpack(logs[i])
    for _ = 1, ARGV[k + 5 * i - 1] do redis.call('LPUSH', log, stamp) end
    redis.call('LTRIM', log, 0, count - 1)
    redis.call('PEXPIRE', log, math.ceil(per / 1000) + 1000)
  end
end
redis.call('PSETEX', KEYS[2], 10000, stamp)
return now

-- Take tokens from k limits: from all of them, or from none.
-- KEYS[1] steering, by name: "n per burst closed", each 0 unless set; under ":" a factor "num den"
-- KEYS[2] the operation; KEYS[3..k+2] the buckets; then the log of each strict limit
-- ARGV    the k names; then for each limit "n per_us burst cost log": n tokens in so long, and which of
--         KEYS is its log (0: it has none). One text each, since every argument costs more than to read it
-- Returns the server's time in us: granted then, also when the same operation asks again
--         {"wait", us, which limit, us per token}: nothing was taken; the longest of the limits' waits
--         {"version"}: a newer version of the library wrote a bucket
-- A bucket is "tat frac closed n per burst": it is full again at tat + frac/n us, and nobody passes until
-- closed. Its debt counts in 1/n us, in which a token is per: so every sum is one of whole numbers.
local k = #ARGV / 2
local held = redis.call('MGET', unpack(KEYS, 2, k + 2))
if held[1] then return tonumber(held[1]) end
local set = redis.call('HMGET', KEYS[1], ':', unpack(ARGV, 1, k))
local now = now_us()
local longest, which, pace = 0, 0, 0
local changed, logs -- tables, if any limit needs them

local function put(key, debt, n, closed, rest)
  local frac = debt % n
  local left = (debt - frac) / n
  redis.call('PSETEX', key, math.ceil(math.max(left, closed - now) / 1000) + 1000,
    string.format('%.0f %.0f %s %s', now + left, frac, closed, rest))
end

for i = 1, k do
  local n, per, burst, cost, log = string.match(ARGV[k + i], '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  local debt, wait = 0, 0
  if set[i + 1] then
    local n1, per1, burst1, closed = string.match(set[i + 1], '^(%d+) (%d+) (%d+) (%d+)$')
    if n1 ~= '0' then n, per = n1, per1 end
    if burst1 ~= '0' then burst = string.format('%.0f', math.max(burst1, cost)) end
    wait = closed - now
  end
  if set[1] or log ~= '0' then
    local num, den = 1, 1
    if set[1] then num, den = string.match(set[1], '^(%d+) (%d+)$') end
    if log ~= '0' then
      local count = math.max(cost, math.floor(n * num / den))
      logs = logs or {}
      logs[i] = {KEYS[tonumber(log)], count, per, cost}
      local last = redis.call('LINDEX', logs[i][1], count - cost)
      if last then wait = math.max(wait, last + per - now) end
    end
    if set[1] then n, per = string.format('%.0f', n * num), string.format('%.0f', per * den) end
  end
  if held[i + 1] then
    local tat, frac, closed, n0, per0 = string.match(held[i + 1], '^(%d+) (%d+) (%d+) (%d+) (%d+) %d+$')
    if not tat then return {'version'} end
    debt = (tat - now) * n0 + frac
    if debt < 0 then debt = 0 end
    if debt > 0 and (n0 ~= n or per0 ~= per) then -- the tokens that it lacks stay; rounded up
      debt = math.ceil(debt * per / per0) + 2
      changed = changed or {}
      changed[i] = {debt, n, closed}
    end
    if closed ~= '0' then wait = math.max(wait, closed - now) end
  end
  local over = debt + (cost - burst) * per
  if over > 0 then wait = math.max(wait, math.ceil(over / n)) end
  if wait > longest then longest, which, pace = wait, i, math.ceil(per / n) end
  ARGV[i], ARGV[k + i], held[i + 1] = debt + cost * per, n .. ' ' .. per .. ' ' .. burst, n -- if granted
end

if longest > 0 then
  for i, bucket in pairs(changed or {}) do -- from now on it fills at the new rate
    put(KEYS[i + 2], bucket[1], bucket[2], bucket[3], ARGV[k + i])
  end
  return {'wait', longest, which, pace}
end
local stamp = string.format('%.0f', now)
for i = 1, k do put(KEYS[i + 2], ARGV[i], held[i + 1], '0', ARGV[k + i]) end
for _, kept in pairs(logs or {}) do
  local log, count, per, cost = unpack(kept)
  -- A task that sleeps its last moments has a stamp ahead of now: none behind it may be older.
  local newest = math.max(now, redis.call('LINDEX', log, 0) or 0)
  for _ = 1, cost do redis.call('LPUSH', log, string.format('%.0f', newest)) end
  redis.call('LTRIM', log, 0, count - 1)
  redis.call('PEXPIRE', log, math.ceil(per / 1000) + 1000)
end
redis.call('PSETEX', KEYS[2], 10000, stamp)
return now

-- Take tokens from k limits: from all of them, or from none.
-- KEYS[1] what is set at run time; KEYS[2] the operation's slot; KEYS[3..k+2] the buckets; then the log of
--         each strict limit
-- ARGV    for each limit "n per burst cost log": n tokens in so many us, and which of KEYS is its log (0: it
--         has none), in one text, since every argument costs more than to read it; then the operation's number
-- Returns the server's time in us: granted then, also when the operation comes again
--         {"wait", us, which limit, us per token}: nothing was taken; the longest of the limits' waits
--         {"version"}: a newer version of the library wrote a bucket
local k = #ARGV - 1
local held = redis.call('MGET', unpack(KEYS, 1, k + 2))
local set, done, number = held[1], held[2], ARGV[k + 1]
if done and string.sub(done, 18) - number >= 0 then return tonumber(string.sub(done, 1, 16)) end
local now = now_us()
local longest, which, pace = 0, 0, 0
local num, den -- the factor of all rates, if any
local units, changed, logs = {} -- the last two are tables if any limit needs them
if set then num, den = steered(set, '') end

for i = 1, k do
  local terms, n, per, burst, cost, log = string.match(ARGV[i], '^((%d+) (%d+) (%d+)) (%d+) (%d+)$')
  n, per, cost = n + 0, per + 0, cost + 0
  local debt, wait, closed, moved = 0, 0
  if set then -- the bucket's name stands in its key behind "<prefix>:limit:{<prefix>}:"
    local n1, per1, burst1, shut = steered(set, string.match(KEYS[i + 2], '^[^:]*', #KEYS[1] - 2))
    if n1 and n1 ~= '0' then n, per = n1 + 0, per1 + 0 end
    if n1 and burst1 ~= '0' then burst = math.max(burst1, cost) end
    if n1 then wait = math.max(0, shut - now) end
  end
  if log ~= '0' then
    local count = math.max(cost, math.floor(n * (num or 1) / (den or 1)))
    logs = logs or {}
    logs[i] = {KEYS[log + 0], count, per, cost}
    local last = redis.call('LINDEX', logs[i][1], count - cost)
    if last then wait = math.max(wait, last + per - now) end
  end
  if num then n, per = n * num, per * den end
  if set then terms = string.format('%d %d %d', n, per, burst) end
  if held[i + 2] then
    debt, closed, moved = debt_of(held[i + 2], now, n, per, terms)
    if not debt then return {'version'} end
    if moved then
      changed = changed or {}
      changed[i] = {debt, n, closed, terms}
    end
    if closed ~= '0' then wait = math.max(wait, closed - now) end
  end
  local over = debt + (cost - burst) * per
  if over > 0 then wait = math.max(wait, math.ceil(over / n)) end
  if wait > longest then longest, which, pace = wait, i, math.ceil(per / n) end
  ARGV[i], units[i], held[i + 2] = debt + cost * per, n, terms -- if granted
end

if longest > 0 then
  for i, bucket in pairs(changed or {}) do -- from now on it fills at the new rate
    save_bucket(KEYS[i + 2], now, now, unpack(bucket))
  end
  return {'wait', longest, which, pace}
end
for i = 1, k do save_bucket(KEYS[i + 2], now, now, ARGV[i], units[i], '0', held[i + 2]) end
for _, kept in pairs(logs or {}) do
  local log, count, per, cost = unpack(kept)
  -- A task that sleeps its last moments has a stamp ahead of now: none behind it may be older.
  local newest = math.max(now, redis.call('LINDEX', log, 0) or 0)
  for _ = 1, cost do redis.call('LPUSH', log, string.format('%d', newest)) end
  redis.call('LTRIM', log, 0, count - 1)
  redis.call('PEXPIRE', log, math.ceil(per / 1000) + 1000)
end
redis.call('PSETEX', KEYS[2], 10000, string.format('%d %s', now, number))
return now

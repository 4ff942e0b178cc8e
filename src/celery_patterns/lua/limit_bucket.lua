-- What the scripts that test limits share: how a bucket is read and written, what is set at run time.
-- KEYS[1] and ARGV are each script's own
-- Returns nothing: it stands before each of them
-- A bucket is "tat frac closed n per burst": it is full again at tat + frac/n us, and nobody passes until
-- closed. Its debt counts in 1/n us, in which a token is per: so every sum is one of whole numbers.
-- `terms` is its end, "n per burst", as it would be written now: if it is the same, there is less to read.

-- What is set for a name: n, per, burst, closed, each "0" unless set. For the empty one: the factor, n / per.
local function steered(set, name)
  local _, at = string.find(set, '\n' .. name .. ':', 1, true)
  if at then return string.match(set, '^(%d+) (%d+) (%d+) (%d+)', at + 1) end
end

-- The debt of a bucket, until when it is closed, and whether it moved to another rate: then the tokens that it
-- lacks stay, rounded up. Nothing if a newer version wrote it.
local function debt_of(bucket, now, n, per, terms)
  local tat, frac, closed, written = string.match(bucket, '^(%d+) (%d+) (%d+) (%d+ %d+ %d+)$')
  if not tat then return end
  local n0, per0 = n, per
  if written ~= terms then
    n0, per0 = string.match(written, '^(%d+) (%d+)')
    n0, per0 = tonumber(n0), tonumber(per0)
  end
  local debt = (tat - now) * n0 + frac
  if debt <= 0 then return 0, closed end
  if n0 == n and per0 == per then return debt, closed end
  return math.ceil(debt * per / per0) + 2, closed, true
end

-- `from` is the time at which it has this debt: now, or some moments ahead.
local function save_bucket(bucket, from, now, debt, n, closed, terms)
  local frac = debt % n
  local full = from + (debt - frac) / n
  local ends = full - now
  if closed ~= '0' then ends = math.max(ends, closed - now) end
  redis.call('PSETEX', bucket, (ends + -ends % 1000) / 1000 + 1000,
    string.format('%d %d %s %s', full, frac, closed, terms))
end

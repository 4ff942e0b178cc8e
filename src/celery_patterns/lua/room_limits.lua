-- What the scripts of the waiting room share: the keys of the room, and limits with their tickets.
-- KEYS[1] is "<prefix>:room:{<prefix>}"; all other keys are made from it, and share its slot.
-- ARGV    each script's own
-- Returns nothing: it stands before each of them
-- A demand is {name, key, n, per_us, burst, cost, strict}; a bucket is as in limit_bucket.lua.
local LIFE, LONGEST_LIFE, SLEEP, SOFT, MARGIN = 500000, 8000000, 50000, 20000, 3000
local CROWD, AHEAD = 5, 12000 -- how many may come early at once, or by how many us
local prefix = string.sub(KEYS[1], 1, (#KEYS[1] - 8) / 2)

local function key(kind, rest)
  return prefix .. ':' .. kind .. ':{' .. prefix .. '}' .. (rest and ':' .. rest or '')
end

local function whole(number) return string.format('%.0f', number) end

local function save_pace(b)
  redis.call('HSET', key('room-pace', b.id), 'out', b.out, 'life', whole(b.life), 'slack', whole(b.slack),
    'age', whole(b.age), 'way', whole(b.way), 'margin', whole(b.margin))
  redis.call('PEXPIRE', key('room-pace', b.id), 3600000)
end

-- What a bucket's tickets say; those that lapsed are dropped, and then tickets live for longer.
local function look_at_tickets(b, now)
  local out, life, slack, age, way, margin =
    unpack(redis.call('HMGET', key('room-pace', b.id), 'out', 'life', 'slack', 'age', 'way', 'margin'))
  b.out, b.life, b.age, b.way = tonumber(out or 0), tonumber(life or LIFE), tonumber(age or 0), tonumber(way or 0)
  b.widest = math.max(MARGIN, math.min(b.cost * b.per / b.n, SOFT))
  b.margin = math.min(b.widest, tonumber(margin or SOFT))
  b.furthest = math.min(SLEEP, b.way + math.max(AHEAD, CROWD * b.cost * b.per / b.n))
  b.slack = math.min(b.furthest, tonumber(slack or math.max(0, SOFT - (b.burst - 1) * b.per / b.n)))
  if b.out == 0 then return end
  local tickets = key('room-tickets', b.id)
  local lapsed = redis.call('ZRANGEBYSCORE', tickets, '-inf', whole(now - b.life))
  for _, ticket in ipairs(lapsed) do
    redis.call('ZREM', tickets, ticket)
    b.out = b.out - string.match(ticket, '^%d+')
  end
  local first = redis.call('ZRANGE', tickets, 0, 0, 'WITHSCORES')
  b.oldest = tonumber(first[2])
  if not b.oldest then b.out = 0 end
  if #lapsed > 0 then
    b.life = math.min(LONGEST_LIFE, b.life * 2)
    save_pace(b)
  end
end

-- Each limit that is asked: its debt; `real`, the wait; `held`, the wait if all tickets were tokens.
local function look(demands, now)
  local keys, buckets = {key('limit-set')}, {}
  for i, d in ipairs(demands) do keys[i + 1] = key('limit', d[1] .. ':' .. d[2]) end
  local held = redis.call('MGET', unpack(keys))
  local set, num, den = held[1] or '', 1, 1
  if steered(set, '') then num, den = steered(set, '') end
  for i, d in ipairs(demands) do
    local b = {id = d[1] .. ':' .. d[2], n = d[3], per = d[4], burst = d[5], cost = d[6], closed = '0', debt = 0}
    local shut = 0
    local n, per, burst, closed = steered(set, d[1])
    if n then
      if n ~= '0' then b.n, b.per = tonumber(n), tonumber(per) end
      if burst ~= '0' then b.burst = math.max(burst, b.cost) end
      shut = closed - now
    end
    if d[7] == 1 then b.count, b.window = math.max(b.cost, math.floor(b.n * num / den)), b.per end
    b.n, b.per = b.n * num, b.per * den
    b.terms = string.format('%d %d %d', b.n, b.per, b.burst)
    b.early = -250000
    if held[i + 1] then
      b.debt, b.closed, b.changed = debt_of(held[i + 1], now, b.n, b.per, b.terms)
      if not b.debt then return nil end
      b.early = math.max(b.early, string.match(held[i + 1], '^%d+') - now)
      shut = math.max(shut, b.closed - now)
    end
    look_at_tickets(b, now)
    b.waiting = redis.call('ZCARD', key('room-line', b.id))
    b.lack = math.ceil((b.debt + (b.cost - b.burst) * b.per) / b.n)
    b.real = math.max(shut, b.lack)
    b.held = math.max(shut, math.ceil((b.debt + (b.out + b.cost - b.burst) * b.per) / b.n - b.slack))
    if b.count then
      local log, at = key('limit-log', b.id), b.count - b.cost
      local last, next = redis.call('LINDEX', log, at), at >= b.out and redis.call('LINDEX', log, at - b.out)
      if last then b.real = math.max(b.real, last + b.window - now) end
      if next then b.held = math.max(b.held, next + b.window - now) end
      if at < b.out then b.held = math.max(b.held, b.real, 1000) end
    end
    buckets[i] = b
  end
  return buckets
end

local function save(b, at, now)
  save_bucket(key('limit', b.id), at, now, b.debt, b.n, b.closed, b.terms)
end

-- Buckets whose rate was changed fill at the new one from now on, also if nothing is taken.
local function save_changed(buckets, now)
  for _, b in ipairs(buckets) do
    if b.changed then save(b, now, now) end
  end
end

local function take(b, at, now)
  b.debt, b.closed = math.max(0, b.debt - (at - now) * b.n) + b.cost * b.per, '0'
  save(b, at, now)
  if b.count then
    local log = key('limit-log', b.id)
    -- Another limit may have put an earlier call off by some moments: count this one then, at the latest.
    local stamp = math.max(at, redis.call('LINDEX', log, 0) or 0)
    for _ = 1, b.cost do redis.call('LPUSH', log, whole(stamp)) end
    redis.call('LTRIM', log, 0, b.count - 1)
    redis.call('PEXPIRE', log, math.ceil((at - now + b.window) / 1000) + 1000)
  end
end

local function issue(b, id, now)
  local tickets = key('room-tickets', b.id)
  b.out = b.out + b.cost * redis.call('ZADD', tickets, whole(now), whole(b.cost) .. ' ' .. id)
  redis.call('PEXPIRE', tickets, 20000)
  save_pace(b)
end

-- Whether there was such a ticket.
local function hand_back(bucket, cost, id)
  if redis.call('ZREM', key('room-tickets', bucket), whole(cost) .. ' ' .. id) == 0 then return false end
  redis.call('HINCRBY', key('room-pace', bucket), 'out', -cost)
  return true
end

-- The limit that is longest in the way, by the wait that `of` says.
local function longest(buckets, of)
  local wait, which = -math.huge, 1
  for i, b in ipairs(buckets) do
    local one = of(b)
    if one > wait then wait, which = one, i end
  end
  return wait, which
end

-- The wait of whoever comes new: behind all who wait, and all who have a ticket.
local function behind(b)
  return b.held + b.waiting * math.ceil(b.per / b.n)
end

local function has_pump() return redis.call('EXISTS', key('room-leader')) == 1 end

-- Wake the pump if it would sleep beyond `at`.
local function poke(at)
  local planned = tonumber(redis.call('HGET', KEYS[1], 'next') or 0)
  if at < planned - 1000 then redis.pcall('PUBLISH', key('room-poke'), '') end
end

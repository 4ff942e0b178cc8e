-- Come into the room: get a ticket at once if there is room for one, or wait.
-- KEYS[1] the room
-- ARGV    "gate" (a publisher) or "park" (a worker that has the message), broker, id, nonce, attempt
--         place ("" if new), rank (0 goes first), demands (JSON; "" if none), line (of those woken; "" if none)
--         wait_us ("" if not timed), patience_us (released after that in any case; "" for never)
--         turn ("" unless the limit is shared out by turns), how many us ago it looked ("" if at nothing), head, body
-- Returns {"ticket", id}: publish it; only at the gate
--         {"parked", how many wait in that line, age of the oldest in us, line, us that it will wait, as it looks}
--         {"no pump"}: nobody would ever release it, to this broker; nothing was done
-- A copy that a worker parks while the same attempt waits already, is that one. A copy published under the
-- same id is another entry.
local mode, broker, id, nonce, attempt, place, rank, demands, line, wait, patience, turn, looked, head, body = unpack(ARGV)
if not has_pump() or redis.call('HGET', KEYS[1], 'broker') ~= broker then return {'no pump'} end
local now = now_us()
local due, wait_us = wait ~= '' and now + wait or nil, tonumber(wait) or 0
if demands ~= '' then
  local buckets = look(cjson.decode(demands), now)
  if not buckets then return {'no pump'} end
  local free = mode == 'gate'
  for _, b in ipairs(buckets) do free = free and b.waiting == 0 and b.held <= 0 end
  if free then
    for _, b in ipairs(buckets) do issue(b, nonce, now) end
    return {'ticket', nonce}
  end
  save_changed(buckets, now)
  local which
  wait_us, which = longest(buckets, behind)
  line, due = buckets[which].id, now + math.max(0, buckets[which].held)
end

local rung = false -- whether it was woken on its way here, since it looked
if looked ~= '' and line ~= '' then
  for _, at in ipairs(redis.call('HMGET', key('room-bell', line), id, '*')) do
    rung = rung or at and tonumber(at) >= now - looked
  end
end
if rung then due = now end

local entry = key('room-entry', id)
local known = redis.call('HMGET', entry, 'nonce', 'out', 'attempt', 'score', 'line')
local function parked()
  local all = line ~= '' and key('room-line', line) or key('room-time')
  local first = redis.call('ZRANGE', all, 0, 0)[1]
  local since = first and redis.call('HGET', key('room-entry', first), 'at') or now
  return {'parked', redis.call('ZCARD', all), math.max(0, now - since), line, math.max(0, wait_us)}
end
if known[1] and not known[2] then -- it waits here already
  if known[1] == nonce then return parked() end
  if mode == 'park' and tonumber(attempt) <= tonumber(known[3]) then return parked() end
end
if known[1] and mode == 'gate' then
  id = id .. '#' .. redis.call('HINCRBY', KEYS[1], 'seq', 1)
  entry = key('room-entry', id)
  known = {}
end

if known[1] then -- a later attempt of what waits: it takes that one's place
  redis.call('ZREM', key('room-line', known[5]), id)
  redis.call('ZREM', key('room-time'), id)
end
local score = tonumber(known[4] or (place ~= '' and place) or nil)
if not score then
  local order
  local turns = key('room-turns', line)
  if turn ~= '' or redis.call('EXISTS', turns) == 1 then -- whoever names no turn has one of its own
    local current = redis.call('HGET', key('room-pace', line), 'turn') or 0
    order = math.max(current, redis.call('ZSCORE', turns, turn) or 0) + 1
    redis.call('ZADD', turns, order, turn)
  else
    order = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  end
  score = rank * 17592186044416 + order
end
redis.call('HSET', entry, 'nonce', nonce, 'attempt', attempt, 'score', whole(score), 'demands', demands,
  'line', line, 'head', head, 'body', body)
redis.call('HSETNX', entry, 'at', whole(now))
redis.call('HDEL', entry, 'out', 'tries')
if line ~= '' and not rung then
  redis.call('ZADD', key('room-line', line), whole(score), id)
end
if line ~= '' and not rung then -- one look for all of the line, however many wait there
  local planned = redis.call('ZSCORE', key('room-due'), line)
  if not planned or due < tonumber(planned) then redis.call('ZADD', key('room-due'), whole(due), line) end
  if patience ~= '' then redis.call('ZADD', key('room-time'), whole(now + patience), id) end
else
  if patience ~= '' then due = math.min(due, now + patience) end
  redis.call('ZADD', key('room-time'), whole(due), id)
end
poke(due)
return parked()

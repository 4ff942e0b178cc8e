-- The pump: say what was published, and get what is to be published now.
-- KEYS[1] the room
-- ARGV    who asks, broker, lease_ms, how many at most, then (id, number) of each release that the broker has taken
-- Returns {us until something is due, entries: {id, number, ticket or "", demands, place or "", head, body,
--         revoked}}
--         {-us}: another pump leads, for so long unless it goes on
--         {-us, broker}: what waits is for another broker
-- Each call ends what the last one began: what was released and is not confirmed, was not published by this
-- pump, and waits again at its old place. So a new leader has nothing else to do, and a lost reply is repaired
-- by the next call. What is confirmed is deleted, unless it came back meanwhile: then it is no longer `out`.
local me, broker, lease, most = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local leader = redis.call('GET', key('room-leader'))
if leader and leader ~= me then return {-1000 * math.max(1, redis.call('PTTL', key('room-leader')))} end
local flight, time, dues = key('room-flight'), key('room-time'), key('room-due')
local whose = redis.call('HGET', KEYS[1], 'broker')
if whose and whose ~= broker and redis.call('EXISTS', flight, time, dues) > 0 then return {-5000000, whose} end
redis.call('HSET', KEYS[1], 'broker', broker)
redis.call('SET', key('room-leader'), me, 'PX', lease)
local now = now_us()

for i = 5, #ARGV, 2 do
  local entry = key('room-entry', ARGV[i])
  if redis.call('HGET', entry, 'out') == ARGV[i + 1] then redis.call('DEL', entry) end
  if redis.call('HGET', flight, ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', flight, ARGV[i]) end
end
local lost = redis.call('HGETALL', flight)
for i = 1, #lost, 2 do
  local entry = key('room-entry', lost[i])
  local out, line, score, demands = unpack(redis.call('HMGET', entry, 'out', 'line', 'score', 'demands'))
  if out == lost[i + 1] then
    redis.call('HDEL', entry, 'out')
    local fails = redis.call('HINCRBY', entry, 'tries', 1) % 5 == 0
    if fails then -- what no broker takes must not keep its line: it comes again later, without a ticket
      redis.call('ZADD', time, whole(now + 30000000), lost[i])
    elseif line ~= '' then
      redis.call('ZADD', key('room-line', line), score, lost[i])
    end
    for _, d in ipairs(demands ~= '' and cjson.decode(demands) or {}) do hand_back(d[1] .. ':' .. d[2], d[6], lost[i]) end
    local in_line = demands ~= '' and redis.call('HEXISTS', entry, 'revoked') == 0
    if in_line then redis.call('ZADD', dues, whole(now), line) end
    if not (in_line or fails) then redis.call('ZADD', time, whole(now), lost[i]) end
  end
end
redis.call('DEL', flight)

local found = {}
local function release(id, ticket)
  local entry = key('room-entry', id)
  local line, demands, score, head, body, revoked =
    unpack(redis.call('HMGET', entry, 'line', 'demands', 'score', 'head', 'body', 'revoked'))
  redis.call('ZREM', time, id)
  if not line then return end
  if line ~= '' then redis.call('ZREM', key('room-line', line), id) end
  local number = redis.call('HINCRBY', KEYS[1], 'releases', 1)
  redis.call('HSET', entry, 'out', number)
  redis.call('HSET', flight, id, number)
  found[#found + 1] = {id, number, ticket, demands, line ~= '' and score or '', head, body, revoked or ''}
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', time, '-inf', whole(now), 'LIMIT', 0, most)) do release(id, '') end

-- The first in a line goes if all its limits have room for a ticket. One that another limit keeps for longer
-- waits in that one's line instead, at its old place, so that it is in nobody's way.
local function serve(line)
  local queue = key('room-line', line)
  while #found < most do
    local id = redis.call('ZRANGE', queue, 0, 0)[1]
    if not id then return redis.call('ZREM', dues, line) end
    local entry = key('room-entry', id)
    local demands, score = unpack(redis.call('HMGET', entry, 'demands', 'score'))
    if demands == '' then -- it waits to be woken, and looks now and then, in case nobody could
      release(id, '')
      return redis.call('ZADD', dues, whole(now + 15000000), line)
    end
    local buckets = demands and look(cjson.decode(demands), now)
    if not buckets then
      redis.call('ZREM', queue, id)
    else
      local wait, which = longest(buckets, function(b) return b.held end)
      if wait <= 0 then
        for _, b in ipairs(buckets) do issue(b, id, now) end
        if redis.call('EXISTS', key('room-turns', line)) == 1 then
          redis.call('HSET', key('room-pace', line), 'turn', whole(score % 17592186044416))
          redis.call('ZREMRANGEBYSCORE', key('room-turns', line), '-inf', whole(score % 17592186044416))
        end
        release(id, id)
      elseif buckets[which].id == line then
        local b = buckets[which]
        if b.oldest then wait = math.min(wait, b.oldest + b.life - now) end
        redis.call('ZADD', dues, whole(now + math.min(wait, 5000000)), line)
        return save_changed(buckets, now)
      else
        redis.call('ZREM', queue, id)
        redis.call('HSET', entry, 'line', buckets[which].id)
        redis.call('ZADD', key('room-line', buckets[which].id), score, id)
        redis.call('ZADD', dues, 'LT', whole(now + wait), buckets[which].id)
      end
    end
  end
end
for _, line in ipairs(redis.call('ZRANGEBYSCORE', dues, '-inf', whole(now), 'LIMIT', 0, most)) do serve(line) end

local soonest = now + 1000000
for _, all in ipairs({time, dues}) do
  local first = redis.call('ZRANGE', all, 0, 0, 'WITHSCORES')[2]
  if first then soonest = math.min(soonest, first) end
end
redis.call('HSET', KEYS[1], 'next', whole(soonest))
return {math.max(0, soonest - now), found}

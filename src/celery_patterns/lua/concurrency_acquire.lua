-- Take one of the places under a limit, or a place in the line of those who wait for one.
-- KEYS[1] the limit: v, fence; beside it <KEYS[1]>:held, task ids by the end of their lease, :line, task ids
--         by arrival, and :looks, task ids by when they look again at the latest, or else have left the line
-- KEYS[2] the lease of this task id, <KEYS[1]>:held:<id>: owner, fence, until, since, host
-- KEYS[3] the marker of this task id, set when it has ended
-- ARGV    owner, lease_ms, keep_ms, limit, "1" where a remembered end does not count, waited_ms,
--         near_ms, far_ms: until the next look of one whose turn is next, and of others (0: it does not wait),
--         slack_ms: how late a look may come, host
-- Returns {"started", fence, lapsed owner or false}; asking again as the same owner changes nothing
--         {"copy", owner, left in ms}: another delivery of this task id runs; {"ended", ms ago}; {"version", v}
--         {"full", ms until the next look, how many are ahead}
local now = now_us()
local ms = math.floor(now / 1000)
local id = string.match(ARGV[1], '^(.*)/')
local held, line, looks = KEYS[1] .. ':held', KEYS[1] .. ':line', KEYS[1] .. ':looks'

local function keep_for(key, for_ms)
  if redis.call('PTTL', key) < tonumber(for_ms) then redis.call('PEXPIRE', key, for_ms) end
end

local limit = redis.call('HMGET', KEYS[1], 'v', 'fence')
if limit[1] and limit[1] ~= '1' then return {'version', limit[1]} end
local mark = ARGV[5] ~= '1' and redis.call('GET', KEYS[3])
if mark then return {'ended', ms - string.match(mark, '%d+')} end
local mine = redis.call('HMGET', KEYS[2], 'owner', 'until', 'fence')
if mine[1] and mine[2] - ms > 0 then
  if mine[1] == ARGV[1] then return {'started', mine[3], false} end
  return {'copy', mine[1], mine[2] - ms}
end
local lapsed = mine[1]
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', held, '-inf', ms)) do
  lapsed = lapsed or redis.call('HGET', held .. ':' .. gone, 'owner')
  redis.call('ZREM', held, gone)
  redis.call('DEL', held .. ':' .. gone)
end
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', looks, '-inf', ms)) do
  redis.call('ZREM', line, gone)
  redis.call('ZREM', looks, gone)
end

local arrived = string.format('%.0f', now - ARGV[6] * 1000)
local ahead = redis.call('ZRANK', line, id) or redis.call('ZCOUNT', line, '-inf', arrived)
local free = ARGV[4] - redis.call('ZCARD', held)
if ahead >= free then
  local wait = tonumber(ahead < tonumber(ARGV[4]) and ARGV[7] or ARGV[8])
  if wait > 0 then
    redis.call('ZADD', line, 'NX', arrived, id)
    redis.call('ZADD', looks, string.format('%.0f', ms + wait + ARGV[9]), id)
    keep_for(line, ARGV[8] + ARGV[9])
    keep_for(looks, ARGV[8] + ARGV[9])
  end
  return {'full', wait, ahead}
end
redis.call('ZREM', line, id)
redis.call('ZREM', looks, id)
local until_ms = string.format('%.0f', ms + ARGV[2])
local fence = string.format('%.0f', math.max((tonumber(limit[2]) or 0) + 1, now))
redis.call('HSET', KEYS[1], 'v', '1', 'fence', fence)
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'fence', fence, 'until', until_ms,
  'since', string.format('%.0f', ms), 'host', ARGV[10])
redis.call('ZADD', held, until_ms, id)
redis.call('DEL', KEYS[3])
for _, key in ipairs({KEYS[1], KEYS[2], held}) do keep_for(key, ARGV[3]) end
return {'started', fence, lapsed}

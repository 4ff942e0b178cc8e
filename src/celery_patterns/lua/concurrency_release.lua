-- Give up a place under a limit, and the place in the line for it.
-- KEYS[1] the limit, with <KEYS[1]>:held, :line and :looks, as in concurrency_acquire.lua
-- KEYS[2] the lease of this task id
-- KEYS[3] the marker of this task id
-- ARGV    owner, fence ('' for whatever this delivery holds), remember_ms: how long the end is remembered
--         (0: not at all), grace_ms: how long this delivery may still be running
-- Returns {"ok"}, also when it was given up before; {"lost"} when the lease was taken from it.
local ms = math.floor(now_us() / 1000)
local id = string.match(ARGV[1], '^(.*)/')
local held = KEYS[1] .. ':held'
local mine = redis.call('HMGET', KEYS[2], 'owner', 'fence', 'until')
redis.call('ZREM', KEYS[1] .. ':line', id)
redis.call('ZREM', KEYS[1] .. ':looks', id)
if mine[1] ~= ARGV[1] or not (ARGV[2] == '' or mine[2] == ARGV[2]) then
  return redis.call('EXISTS', KEYS[3]) == 1 and {'ok'} or {'lost'}
end
if ARGV[3] ~= '0' then redis.call('SET', KEYS[3], 'ended ' .. string.format('%.0f', ms), 'PX', ARGV[3]) end
local grace = math.min(mine[3] - ms, ARGV[4])
if grace > 0 then
  local until_ms = string.format('%.0f', ms + grace)
  redis.call('HSET', KEYS[2], 'until', until_ms)
  redis.call('ZADD', held, 'XX', until_ms, id)
else
  redis.call('DEL', KEYS[2])
  redis.call('ZREM', held, id)
end
return {'ok'}

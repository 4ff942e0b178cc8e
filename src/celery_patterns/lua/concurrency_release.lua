-- Give up a place under a limit, or the place in the line for it.
-- KEYS[1] the limit, with <KEYS[1]>:held, :line and :looks, as in concurrency_acquire.lua
-- KEYS[2] the lease of this task id
-- KEYS[3] the marker of this task id
-- ARGV    owner, fence ('' for whatever this delivery has, also in the line),
--         remember_ms: how long the end is remembered (0: not at all), limit, and if need be
--         grace_ms: how long this delivery may still be running, replay: which one has ended
-- Returns 1, also when it was given up before; 0 when the lease was taken from it. The end is remembered then as well,
--         unless another delivery of the task runs
--         {1 or 0, task ids}: likewise, and those in the line for whom places are free
local mine = redis.call('HMGET', KEYS[2], 'owner', 'fence')
local held, line = KEYS[1] .. ':held', KEYS[1] .. ':line'
local any = ARGV[2] == ''
local id = string.match(ARGV[1], '^(.*)/')

local function answer(kept)
  local next = redis.call('ZRANGE', line, 0, 0)
  if not next[1] then return kept end
  local free = ARGV[4] - redis.call('ZCARD', held)
  if free > 1 then next = redis.call('ZRANGE', line, 0, free - 1) end
  return free > 0 and {kept, next} or kept
end

if any then
  redis.call('ZREM', line, id)
  redis.call('ZREM', KEYS[1] .. ':looks', id)
end
local function remember()
  if ARGV[3] ~= '0' then redis.call('SET', KEYS[3], 'ended ' .. (ARGV[6] or 0) .. ' ' .. ARGV[1], 'PX', ARGV[3]) end
end
if mine[1] ~= ARGV[1] or not (any or mine[2] == ARGV[2]) then
  local mark = redis.call('GET', KEYS[3])
  if any or ARGV[3] == '0' or mark and string.sub(mark, -#ARGV[1]) == ARGV[1] then return answer(mark and 1 or 0) end
  if not mine[1] then remember() end
  return answer(0)
end
remember()
if ARGV[5] then
  local ms = math.floor(now_us() / 1000)
  local grace = math.min(redis.call('HGET', KEYS[2], 'until') - ms, ARGV[5])
  if grace > 0 then
    local until_ms = string.format('%.0f', ms + grace)
    redis.call('HSET', KEYS[2], 'until', until_ms)
    redis.call('ZADD', held, 'XX', until_ms, id)
    return 1
  end
end
redis.call('DEL', KEYS[2])
redis.call('ZREM', held, id)
return answer(1)

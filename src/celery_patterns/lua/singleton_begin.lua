-- Start a delivery: take the lock, or learn why not.
-- KEYS[1] the lock, as in singleton_queue.lua
-- KEYS[2] the marker of this task id; KEYS[3] that of the task id whose result it waits for, or KEYS[2] again
-- ARGV    owner, lease_ms, keep_ms, on_conflict, "1" where a remembered end does not count,
--         at (when it was published; or ''), waited_ms, turn_ms: how long its turn is kept, marker_ms, host
-- Returns {"started", fence, lapsed owner or false}; asking again as the same owner changes nothing
--         {"held", owner, left in ms, 1 if the next turn is this task's}
--         {"ended", ms ago}; {"replaced", by}: so it was itself
--         {"over", ms ago}; {"moved", by}: so was the one whose result it waits for
--         {"version", v}
local r = redis.call('HMGET', KEYS[1], 'v', 'owner', 'until', 'next', 'next_at', 'next_until', 'fence', 'at')
local now = now_us()
local ms = math.floor(now / 1000)
local id = string.match(ARGV[1], '^(.*)/')
local at = string.format('%.0f', tonumber(ARGV[6]) or now - ARGV[7] * 1000)
local owner, left, next_left = r[2], r[2] and r[3] - ms or 0, r[4] and r[6] - ms or 0

local function word_of(key)
  local mark = redis.call('GET', key)
  if mark then return string.match(mark, '^(%a+) (.*)$') end
end

local function replaced(who, for_ms)
  redis.call('SET', KEYS[1] .. ':ended:' .. who, 'replaced ' .. id, 'PX', math.max(ARGV[9], for_ms))
end

local function keep_for(for_ms)
  if redis.call('PTTL', KEYS[1]) < tonumber(for_ms) then redis.call('PEXPIRE', KEYS[1], for_ms) end
end

local function next_is(next_at)
  redis.call('HSET', KEYS[1], 'next', id, 'next_at', next_at, 'next_until', string.format('%.0f', ms + ARGV[8]))
  keep_for(ARGV[8])
  return {'held', owner, left, 1}
end

if r[1] and r[1] ~= '1' then return {'version', r[1]} end
local word, what = word_of(KEYS[2])
local follows = KEYS[3] ~= KEYS[2]
if word == 'ended' and ARGV[5] ~= '1' then return {'ended', ms - what} end
if word == 'replaced' and not follows then return {'replaced', what} end
if follows then
  local their, by = word_of(KEYS[3])
  if their then return their == 'ended' and {'over', ms - by} or {'moved', by} end
end
if left <= 0 and next_left > 0 then -- the holder has vanished, and another waits for its turn
  owner, left, next_left = r[4] .. '/', next_left, 0
  redis.call('HSET', KEYS[1], 'owner', owner, 'until', r[6])
  redis.call('HDEL', KEYS[1], 'next', 'next_at', 'next_until')
end
local queued = owner and string.sub(owner, -1) == '/'
local holder = owner and string.match(owner, '^(.*)/')
local newest = ARGV[4] == 'replace' or ARGV[4] == 'keep_latest'
if left > 0 and holder ~= id then
  local has_turn = next_left > 0 and r[4] == id
  if follows or not (newest or ARGV[4] == 'defer') then return {'held', owner, left, 0} end
  if has_turn then return next_is(r[5]) end
  if not newest then -- the turn is for the longest waiter
    local behind = next_left > 0 and tonumber(r[5]) <= tonumber(at)
    return behind and {'held', owner, left, 0} or next_is(at)
  end
  if tonumber(at) < (tonumber(r[8]) or 0) then return {'replaced', next_left > 0 and r[4] or holder} end
  redis.call('HSET', KEYS[1], 'at', at)
  if ARGV[4] == 'keep_latest' or not queued then
    if next_left > 0 then replaced(r[4], next_left) end
    return next_is(at)
  end
  replaced(holder, left)
elseif left > 0 and not queued then -- this delivery asks again, or another one of this very task
  return owner == ARGV[1] and {'started', r[7], false} or {'held', owner, left, 0}
end
local fence = string.format('%.0f', math.max((tonumber(r[7]) or 0) + 1, now))
if word then redis.call('DEL', KEYS[2]) end
if r[4] == id then redis.call('HDEL', KEYS[1], 'next', 'next_at', 'next_until') end
redis.call('HSET', KEYS[1], 'v', '1', 'owner', ARGV[1], 'fence', fence, 'since', string.format('%.0f', ms),
  'until', string.format('%.0f', ms + ARGV[2]), 'at', at, 'host', ARGV[10])
keep_for(ARGV[3])
return {'started', fence, left <= 0 and owner and not queued and owner}

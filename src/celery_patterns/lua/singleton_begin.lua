-- Start a delivery: take the lock, or learn why not.
-- KEYS[1] the lock, as in singleton_queue.lua
-- KEYS[2] the marker of this task id
-- KEYS[3] that of the task whose result it waits for, if it does
-- ARGV    owner, lease_ms, keep_ms, of ("1 <host>"), and if need be
--         "again" where a remembered end does not count, and where conflicts wait for a turn: on_conflict,
--         at (of its publication, or ''), waited_ms, turn_ms: how long a turn is kept, remember_ms
-- Returns the fence of a run that starts; asking again as the same owner changes nothing
--         {"lapsed", fence, owner}: it starts, and owner's lease had lapsed
--         {"held", owner, left in ms, 1 if the next turn is this task's}
--         {"ended", ms for which that is remembered, replay}; {"replaced", by}: so it was itself
--         {"over", ms likewise}; {"moved", by}: so was the one whose result it waits for
--         {"version", of}
local now = now_us()
local ms = math.floor(now / 1000)
local known = redis.call('EXISTS', unpack(KEYS)) > 0 -- usually not: one look at all keys is cheaper than many
local owner = known and redis.call('HGET', KEYS[1], 'owner')
local mark = known and redis.call('GET', KEYS[2])
local newest = ARGV[6] == 'replace' or ARGV[6] == 'keep_latest'
local arrived = ARGV[8] and (ARGV[7] ~= '' and ARGV[7] or string.format('%.0f', now - ARGV[8] * 1000))
local fence, lapsed = now

if mark then
  local word, what = string.match(mark, '^(%a+) (.*)$')
  if word == 'ended' and ARGV[5] ~= 'again' then
    return {'ended', redis.call('PTTL', KEYS[2]), tonumber(what)}
  end
  if word == 'replaced' and not KEYS[3] then return {'replaced', what} end
end
local their = known and KEYS[3] and redis.call('GET', KEYS[3])
if their then
  local word, what = string.match(their, '^(%a+) (.*)$')
  return word == 'ended' and {'over', redis.call('PTTL', KEYS[3])} or {'moved', what}
end
if owner then
  local r = redis.call('HMGET', KEYS[1], 'owner', 'until', 'fence', 'of', 'next', 'at')
  if string.sub(r[4], 1, 2) ~= '1 ' then return {'version', r[4]} end
  local id = string.match(ARGV[1], '^(.*)/')
  local left = r[2] - ms
  local next_until, next_at, next_id = string.match(r[5] or '', '^(%d+) (%d+) (.*)$')
  local next_left = next_until and next_until - ms or 0
  if left <= 0 and next_left > 0 then -- the holder has vanished, and another waits for its turn
    owner, left, next_left = next_id .. '/', next_left, 0
    redis.call('HSET', KEYS[1], 'owner', owner, 'until', next_until)
    redis.call('HDEL', KEYS[1], 'next')
  end
  local holder, queued = string.match(owner, '^(.*)/'), string.sub(owner, -1) == '/'
  if left > 0 and holder == id and not queued then -- asking again, or another delivery of this very task
    return owner == ARGV[1] and tonumber(r[3]) or {'held', owner, left, 0}
  elseif left > 0 and holder ~= id then
    local mine, turn = next_left > 0 and next_id == id, 0
    if KEYS[3] then
      turn = 0
    elseif mine then
      turn = 1
    elseif ARGV[6] == 'defer' then -- the turn is for the longest waiter
      turn = (next_left <= 0 or tonumber(arrived) < tonumber(next_at)) and 1 or 0
    elseif newest then -- the turn is for the newest
      if tonumber(arrived) < (tonumber(r[6]) or 0) then
        return {'replaced', next_left > 0 and next_id or holder}
      end
      turn = ARGV[6] == 'replace' and queued and 2 or 1
      local other, for_ms = turn == 2 and holder or next_left > 0 and next_id, turn == 2 and left or next_left
      if other then
        redis.call('SET', KEYS[1] .. ':ended:' .. other, 'replaced ' .. id, 'PX', math.max(ARGV[10], for_ms))
      end
      redis.call('HSET', KEYS[1], 'at', arrived)
    end
    if turn == 1 then
      local next_is = string.format('%.0f', ms + ARGV[9]) .. ' ' .. (mine and next_at or arrived) .. ' ' .. id
      redis.call('HSET', KEYS[1], 'next', next_is)
      if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[9]) then redis.call('PEXPIRE', KEYS[1], ARGV[9]) end
    end
    if turn < 2 then
      redis.call('HSET', KEYS[1], 'awaited', 1)
      return {'held', owner, left, turn}
    end
  end
  if next_id == id then redis.call('HDEL', KEYS[1], 'next') end
  lapsed = left <= 0 and not queued and owner
  fence = math.max((tonumber(r[3]) or 0) + 1, now)
end
if mark then redis.call('DEL', KEYS[2]) end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', string.format('%.0f', fence),
  'until', string.format('%.0f', ms + ARGV[2]), 'of', ARGV[4])
if newest then redis.call('HSET', KEYS[1], 'at', arrived) end
if not owner or redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return lapsed and {'lapsed', string.format('%.0f', fence), lapsed} or fence

-- Start a delivery: take the lock, or learn why not.
-- KEYS[1] the lock, as in singleton_queue.lua
-- KEYS[2] the marker of this task id
-- KEYS[3] that of the task whose result it waits for, if it does
-- ARGV    owner, lease_ms, keep_ms, of ("1 <host>"), and if need be
--         "again" where a remembered end does not count, and where conflicts wait for a turn: on_conflict,
--         at (of its publication, or ''), waited_ms, turn_ms: how long a turn is kept, remember_ms
--         and where it is the longest waiter's: most_ms, pace_ms: how long a place in the line is kept, for turn_ms
--         and pace_ms more for each who is ahead, up to most_ms
-- Returns the fence of a run that starts; asking again as the same owner changes nothing
--         {"lapsed", fence, owner}: it starts, and owner's lease had lapsed
--         {"held", owner, left in ms, how many are ahead; -1: it is in no line, -2: and the owner has ended}
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
    return {'ended', redis.call('PTTL', KEYS[2]), tonumber(string.match(what, '^%d+'))}
  end
  if word == 'replaced' and not KEYS[3] then return {'replaced', what} end
end
local their = known and KEYS[3] and redis.call('GET', KEYS[3])
if their then
  local word, what = string.match(their, '^(%a+) (.*)$')
  return word == 'ended' and {'over', redis.call('PTTL', KEYS[3])} or {'moved', what}
end
if owner then
  local r = redis.call('HMGET', KEYS[1], 'owner', 'until', 'fence', 'of', 'next', 'at', 'lapsed')
  if string.sub(r[4], 1, 2) ~= '1 ' then return {'version', r[4]} end
  local id = string.match(ARGV[1], '^(.*)/')
  local left, next_left, next_id = r[2] - ms, 0, nil
  if r[5] or left <= 0 then next_left, next_id = next_turn(ms, r[5]) end
  lapsed = r[7] or left <= 0 and has_vanished(owner) and owner
  if left <= 0 and next_left > 0 then -- another waits for its turn
    if lapsed then redis.call('HSET', KEYS[1], 'lapsed', lapsed) end
    pass_on(ms, next_left, next_id)
    owner, left, next_left = next_id .. '/', next_left, 0
  end
  local holder, queued = string.match(owner, '^(.*)/'), string.sub(owner, -1) == '/'
  if left > 0 and holder == id and not queued then -- asking again, or another delivery of this very task
    return owner == ARGV[1] and tonumber(r[3]) or {'held', owner, left, -1}
  elseif left > 0 and holder ~= id then
    local takes, ahead = false, -1
    if KEYS[3] then
      ahead = -1
    elseif ARGV[6] == 'defer' then -- the turn is for the longest waiter
      ahead = stand_in_line(ms, id, arrived, tonumber(ARGV[9]), tonumber(ARGV[11]), ARGV[12])
    elseif newest then -- the turn is for the newest
      local mine = next_left > 0 and next_id == id
      if not mine and tonumber(arrived) < (tonumber(r[6]) or 0) then
        return {'replaced', next_left > 0 and next_id or holder}
      end
      takes, ahead = not mine and ARGV[6] == 'replace' and queued, 0
      local other, for_ms = takes and holder or not mine and next_left > 0 and next_id, takes and left or next_left
      if other then
        redis.call('SET', KEYS[1] .. ':ended:' .. other, 'replaced ' .. id, 'PX', math.max(ARGV[10], for_ms))
      end
      if not takes then
        local at = mine and string.match(r[5], ' (%d+) ') or arrived
        redis.call('HSET', KEYS[1], 'next', string.format('%.0f', ms + ARGV[9]) .. ' ' .. at .. ' ' .. id)
        if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[9]) then redis.call('PEXPIRE', KEYS[1], ARGV[9]) end
      end
      if not mine then redis.call('HSET', KEYS[1], 'at', arrived) end
    elseif has_ended(owner) then
      ahead = -2
    end
    if not takes then
      redis.call('HSET', KEYS[1], 'awaited', 1)
      return {'held', owner, left, ahead}
    end
  end
  if next_id == id then redis.call('HDEL', KEYS[1], 'next') end
  if lapsed then redis.call('HDEL', KEYS[1], 'lapsed') end
  fence = math.max((tonumber(r[3]) or 0) + 1, now)
end
if ARGV[6] == 'defer' then leave_line(string.match(ARGV[1], '^(.*)/')) end
if mark then redis.call('DEL', KEYS[2]) end
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', string.format('%.0f', fence),
  'until', string.format('%.0f', ms + ARGV[2]), 'of', ARGV[4])
if newest then redis.call('HSET', KEYS[1], 'at', arrived) end
if not owner or redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return lapsed and {'lapsed', string.format('%.0f', fence), lapsed} or fence

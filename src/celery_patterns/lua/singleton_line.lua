-- Shared by the scripts of a singleton's lock: the line of the calls that wait for their turn.
-- Beside the lock, KEYS[1], there are <KEYS[1]>:line, task ids by arrival (us), and <KEYS[1]>:looks, task ids by
-- when they will have looked again (ms): who has not is out of the line.
-- ARGV    each script's own
-- Returns nothing: it stands before each of them
local line, looks = KEYS[1] .. ':line', KEYS[1] .. ':looks'
local TURN = 65000 -- ms for which somebody whose turn it is may take to come, at the most

local function leave_line(id)
  if redis.call('ZREM', line, id) == 1 then redis.call('ZREM', looks, id) end
end

-- For how many ms the next turn is whose, the newest's or the longest waiter's; 0 if it is nobody's.
local function next_turn(ms, newest)
  local until_ms, at, id = string.match(newest or '', '^(%d+) (%d+) (.*)$')
  if until_ms then return math.max(0, until_ms - ms), id, at end
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', looks, '-inf', ms)) do leave_line(gone) end
  local first = redis.call('ZRANGE', line, 0, 0)[1]
  if not first then return 0 end
  return math.min(TURN, redis.call('ZSCORE', looks, first) - ms), first
end

-- The lock is that one's now.
local function pass_on(ms, for_ms, id)
  redis.call('HSET', KEYS[1], 'owner', id .. '/', 'until', string.format('%.0f', ms + for_ms))
  redis.call('HDEL', KEYS[1], 'next')
  leave_line(id)
  if redis.call('PTTL', KEYS[1]) < for_ms then redis.call('PEXPIRE', KEYS[1], math.ceil(for_ms)) end
end

-- Take a place in the line, or keep it for as long as it may be until the next look; how many are ahead.
local function stand_in_line(ms, id, arrived, near_ms, most_ms, pace_ms)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', looks, '-inf', ms)) do leave_line(gone) end
  redis.call('ZADD', line, 'NX', arrived, id)
  local ahead = redis.call('ZRANK', line, id)
  local keep = string.format('%.0f', math.min(most_ms, near_ms + ahead * pace_ms))
  redis.call('ZADD', looks, string.format('%.0f', ms + keep), id)
  for _, key in ipairs({KEYS[1], line, looks}) do
    if redis.call('PTTL', key) < tonumber(keep) then redis.call('PEXPIRE', key, keep) end
  end
  return ahead
end

-- Whether the task of an owner has ended: its process may live on for a moment.
local function has_ended(owner)
  local id = string.match(owner, '^(.*)/[^/]+$')
  return id and string.sub(redis.call('GET', KEYS[1] .. ':ended:' .. id) or '', 1, 5) == 'ended'
end

-- Whether an owner whose time is over was running, and nobody knows what became of it.
local function has_vanished(owner)
  return string.sub(owner, -1) ~= '/' and not has_ended(owner)
end

-- Give up what an owner holds: free it, pass it on to whose turn is next, or hand it back to the queue.
-- KEYS[1] the lock, as in singleton_queue.lua
-- KEYS[2] the marker of this task id
-- ARGV    owner, fence ('' for whatever the task holds: this delivery's lease, or a place in the queue),
--         remember_ms: how long the end is remembered (0: not at all), and if need be
--         grace_ms: how long this delivery may still be running,
--         queued_ms ('' for free): how long the task is queued, unless it has ended meanwhile,
--         replay: which one has ended, if not the first life of the task
-- Returns 1, also when it was given up before; 2 if somebody waits for it; {"next", id} if that one has it now
--         {"lost", owner} when another holds the lock
local r = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'next', 'awaited')
local given = r[4] and 2 or 1
local owner, any = r[1], ARGV[2] == ''
local remember = ARGV[3] ~= '0'
if not (owner == ARGV[1] and r[2] == ARGV[2]) or r[3] or ARGV[4] then
  local id = string.match(ARGV[1], '^(.*)/')
  local queued = owner == id .. '/'
  local ms = math.floor(now_us() / 1000)
  local next_until, _, next_id = string.match(r[3] or '', '^(%d+) (%d+) (.*)$')
  if any and next_id == id then
    redis.call('HDEL', KEYS[1], 'next')
    next_until = nil
  end
  if not owner and any or queued and not any then return 1 end
  if owner and not queued and not (owner == ARGV[1] and (any or r[2] == ARGV[2])) then
    return redis.call('EXISTS', KEYS[2]) == 1 and 1 or {'lost', owner}
  end
  if owner and (ARGV[5] or '') ~= '' and redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('HSET', KEYS[1], 'owner', id .. '/', 'until', string.format('%.0f', ms + ARGV[5]))
    if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
    return 1
  end
  if remember then redis.call('PSETEX', KEYS[2], ARGV[3], 'ended ' .. (ARGV[6] or 0)) end
  local next_left = next_until and next_until - ms or 0
  local until_ms = owner and not queued and redis.call('HGET', KEYS[1], 'until')
  local grace = until_ms and math.min(until_ms - ms, ARGV[4] or 0) or 0
  if grace > 0 then
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', ms + grace))
    redis.call('PEXPIRE', KEYS[1], math.max(grace, next_left))
    return given
  elseif next_left > 0 then
    redis.call('HSET', KEYS[1], 'owner', next_id .. '/', 'until', next_until)
    redis.call('HDEL', KEYS[1], 'next')
    return {'next', next_id}
  end
elseif remember then
  redis.call('PSETEX', KEYS[2], ARGV[3], 'ended 0')
end
redis.call('DEL', KEYS[1])
return given

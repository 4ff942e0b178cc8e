-- Give up what an owner holds: free it, pass it on to whose turn is next, or hand it back to the queue.
-- KEYS[1] the lock, as in singleton_queue.lua
-- KEYS[2] the marker of this task id
-- ARGV    owner, fence ('' for whatever the task holds: this delivery's lease, or a place in the queue),
--         remember_ms: how long the end is remembered (0: not at all), and if need be
--         grace_ms: how long this delivery may still be running,
--         queued_ms ('' for free): how long the task is queued, unless it has ended meanwhile,
--         replay: which one has ended, if not the first life of the task
-- Returns 1, also when it was given up before; 2 if somebody waits for it; {"next", id} if that one has it now
--         {"lost", owner} when it was taken from this owner; '' if nobody holds it any more
local r = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'next', 'awaited')
local given = r[4] and 2 or 1
local owner, any = r[1], ARGV[2] == ''
local function remember()
  if ARGV[3] ~= '0' then redis.call('PSETEX', KEYS[2], ARGV[3], 'ended ' .. (ARGV[6] or 0) .. ' ' .. ARGV[1]) end
end
if not (owner == ARGV[1] and r[2] == ARGV[2]) or r[3] or r[4] or ARGV[4] then
  local id = string.match(ARGV[1], '^(.*)/')
  local queued = owner == id .. '/'
  local ms = math.floor(now_us() / 1000)
  if any then leave_line(id) end
  local next_left, next_id = 0, nil
  if r[3] or r[4] then next_left, next_id = next_turn(ms, r[3]) end
  if any and next_id == id then
    redis.call('HDEL', KEYS[1], 'next')
    next_left = 0
  end
  if not owner and any or queued and not any then return 1 end
  if not queued and not (owner == ARGV[1] and (any or r[2] == ARGV[2])) then
    local mark = redis.call('GET', KEYS[2])
    if any or ARGV[3] == '0' or mark and string.sub(mark, -#ARGV[1]) == ARGV[1] then -- or it was given up before
      return (mark or not owner) and 1 or {'lost', owner}
    end
    if string.match(owner or '', '^(.*)/') ~= id then remember() end
    return {'lost', owner or ''}
  end
  if owner and (ARGV[5] or '') ~= '' and redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('HSET', KEYS[1], 'owner', id .. '/', 'until', string.format('%.0f', ms + ARGV[5]))
    if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
    return 1
  end
  remember()
  local until_ms = owner and not queued and redis.call('HGET', KEYS[1], 'until')
  local grace = until_ms and math.min(until_ms - ms, ARGV[4] or 0) or 0
  if grace > 0 then
    redis.call('HSET', KEYS[1], 'until', string.format('%.0f', ms + grace))
    redis.call('PEXPIRE', KEYS[1], math.max(grace, next_left, redis.call('PTTL', line)))
    return given
  elseif next_left > 0 then
    pass_on(ms, next_left, next_id)
    return {'next', next_id}
  end
else
  remember()
end
redis.call('DEL', KEYS[1])
return given

-- Give up what an owner holds: free it, pass it on to whose turn is next, or hand it back to the queue.
-- KEYS[1] the lock, as in singleton_queue.lua
-- KEYS[2] the marker of this task id
-- ARGV    owner, fence ('' for whatever the task holds: this delivery's lease, or a place in the queue),
--         "free", or "queue" (which frees as well if the task has ended meanwhile),
--         ms: how long the end is remembered (0: not at all), or how long the task is queued,
--         grace_ms: how long this delivery may still be running
-- Returns {"ok"}, also when it was given up before; {"lost", owner} when another holds the lock.
local r = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'until', 'next', 'next_at', 'next_until')
local ms = math.floor(now_us() / 1000)
local id = string.match(ARGV[1], '^(.*)/')
local owner, any = r[1], ARGV[2] == ''
local queued = owner == id .. '/'

local function remember()
  if ARGV[3] == 'free' and ARGV[4] ~= '0' then
    redis.call('SET', KEYS[2], 'ended ' .. string.format('%.0f', ms), 'PX', ARGV[4])
  end
end

if any and r[4] == id then
  redis.call('HDEL', KEYS[1], 'next', 'next_at', 'next_until')
end
if not owner then -- the server forgot it, or an operator released it
  if not any then remember() end
  return {'ok'}
end
if queued and not any then return {'ok'} end
if not queued and (owner ~= ARGV[1] or not (any or r[2] == ARGV[2])) then
  return redis.call('EXISTS', KEYS[2]) == 1 and {'ok'} or {'lost', owner}
end
if ARGV[3] == 'queue' and redis.call('EXISTS', KEYS[2]) == 0 then
  redis.call('HSET', KEYS[1], 'owner', id .. '/', 'until', string.format('%.0f', ms + ARGV[4]))
  if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
  return {'ok'}
end
remember()
local next_left = r[4] and r[4] ~= id and r[6] - ms or 0
local grace = not queued and math.min(r[3] - ms, ARGV[5]) or 0
if grace > 0 then
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', ms + grace))
  redis.call('PEXPIRE', KEYS[1], math.max(grace, next_left))
elseif next_left > 0 then
  redis.call('HSET', KEYS[1], 'owner', r[4] .. '/', 'until', r[6], 'since', string.format('%.0f', ms))
  redis.call('HDEL', KEYS[1], 'next', 'next_at', 'next_until')
else
  redis.call('DEL', KEYS[1])
end
return {'ok'}

-- Keep a queued lock, or the turn after its holder's, for longer: its task waits for something else.
-- KEYS[1] the lock, as in singleton_queue.lua
-- ARGV    id, queued_ms from now on
-- Returns 1 if it is this task's, else 0
local r = redis.call('HMGET', KEYS[1], 'owner', 'until', 'next')
local until_ms = math.floor(now_us() / 1000) + ARGV[2]
if r[1] == ARGV[1] .. '/' then
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', math.max(until_ms, r[2])))
else
  local next_until, at, id = string.match(r[3] or '', '^(%d+) (%d+) (.*)$')
  if id ~= ARGV[1] then return 0 end
  redis.call('HSET', KEYS[1], 'next', string.format('%.0f', math.max(until_ms, next_until)) .. ' ' .. at .. ' ' .. id)
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1

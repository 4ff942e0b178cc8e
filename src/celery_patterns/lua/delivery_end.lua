-- A delivery has reported an end: forget it, and those that have vanished; others may be alive.
-- KEYS[1] the hash of delivery_begin.lua
-- ARGV    delivery
-- Returns how many were forgotten
local now = math.floor(now_us() / 1000)
local all = redis.call('HGETALL', KEYS[1])
local forgotten = 0
for i = 1, #all, 2 do
  if all[i] == ARGV[1] or tonumber(all[i + 1]) <= now then
    forgotten = forgotten + redis.call('HDEL', KEYS[1], all[i])
  end
end
return forgotten

-- Revoke what waits: it leaves its line, and is published at once as revoked, for a worker to bury.
-- KEYS[1] the room
-- ARGV    ids
-- Returns how many of them waited here
local now, count = now_us(), 0
for _, id in ipairs(ARGV) do
  local entry = key('room-entry', id)
  local line, out = unpack(redis.call('HMGET', entry, 'line', 'out'))
  if line and not out then
    redis.call('HSET', entry, 'revoked', 1)
    if line ~= '' then redis.call('ZREM', key('room-line', line), id) end
    redis.call('ZADD', key('room-time'), whole(now), id)
    count = count + 1
  end
end
if count > 0 then poke(now) end
return count

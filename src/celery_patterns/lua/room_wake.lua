-- Have those released who wait for something that has come free.
-- KEYS[1] the room
-- ARGV    line, then the ids of those who wait there; none for the first, "*" for the first thousand
-- Returns how many of them there were
local line, time, now, count = key('room-line', ARGV[1]), key('room-time'), now_us(), 0
local ids = {unpack(ARGV, 2)}
if not ids[1] or ids[1] == '*' then ids = redis.call('ZRANGE', line, 0, ids[1] and 999 or 0) end
for _, id in ipairs(ids) do
  if redis.call('ZREM', line, id) == 1 then
    redis.call('ZADD', time, whole(now), id)
    count = count + 1
  end
end
if count > 0 then poke(now) end
return count

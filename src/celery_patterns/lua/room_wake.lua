-- Have those released who wait for something that has come free.
-- KEYS[1] the room
-- ARGV    line, then the ids of those who wait there; none for the first, "*" for the first thousand
-- Returns how many of them there were
-- Whoever has looked and is on its way into the line is not there yet: the bell says when it was woken.
local line, bell, time, now = key('room-line', ARGV[1]), key('room-bell', ARGV[1]), key('room-time'), now_us()
local count, missed, ids = 0, {}, {unpack(ARGV, 2)}
if not ids[1] or ids[1] == '*' then
  if ids[1] or redis.call('EXISTS', line) == 0 then missed = {'*', whole(now)} end
  ids = redis.call('ZRANGE', line, 0, ids[1] and 999 or 0)
end
for _, id in ipairs(ids) do
  if redis.call('ZREM', line, id) == 1 then
    redis.call('ZADD', time, whole(now), id)
    count = count + 1
  else
    missed[#missed + 1], missed[#missed + 2] = id, whole(now)
  end
end
if missed[1] and has_pump() then
  redis.call('HSET', bell, unpack(missed))
  redis.call('PEXPIRE', bell, 10000)
end
if count > 0 then poke(now) end
return count

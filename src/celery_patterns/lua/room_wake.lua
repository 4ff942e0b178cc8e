-- Have those released who wait for something that has come free.
-- KEYS[1] the room
-- ARGV    line, who: the id of one who waits there, "" for the first, "*" for the first thousand
-- Returns how many there were
local line, who = key('room-line', ARGV[1]), ARGV[2]
local woken = {}
if who == '' or who == '*' then
  woken = redis.call('ZPOPMIN', line, who == '' and 1 or 1000)
elseif redis.call('ZREM', line, who) == 1 then
  woken = {who, 0}
end
local now = now_us()
for i = 1, #woken, 2 do redis.call('ZADD', key('room-time'), whole(now), woken[i]) end
if #woken > 0 then poke(now) end
return #woken / 2

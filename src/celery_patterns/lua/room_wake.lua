-- Have those released who wait for something that has come free, longest waiting first.
-- KEYS[1] the room
-- ARGV    line, how many
-- Returns how many there were
local woken = redis.call('ZPOPMIN', key('room-line', ARGV[1]), ARGV[2])
local now = now_us()
for i = 1, #woken, 2 do redis.call('ZADD', key('room-time'), whole(now), woken[i]) end
if #woken > 0 then poke(now) end
return #woken / 2

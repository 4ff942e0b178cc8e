-- Hand a ticket in that nobody will use: the task ends without having taken its token.
-- KEYS[1] the room
-- ARGV    ticket, then (bucket, cost) of each limit that it is for
-- Returns "ok"
local now = now_us()
for i = 2, #ARGV, 2 do
  if hand_back(ARGV[i], ARGV[i + 1], ARGV[1]) and redis.call('ZSCORE', key('room-due'), ARGV[i]) then
    redis.call('ZADD', key('room-due'), whole(now), ARGV[i])
    poke(now)
  end
end
return 'ok'

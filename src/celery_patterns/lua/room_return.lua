-- Hand a ticket in that nobody will use: the task ends without having taken its token.
-- KEYS[1] the room
-- ARGV    ticket, then (bucket, cost) of each limit that it is for
-- Returns "ok"
local now = now_us()
for i = 2, #ARGV, 2 do
  if redis.call('ZREM', key('room-tickets', ARGV[i]), ARGV[i + 1] .. ' ' .. ARGV[1]) == 1 then
    redis.call('HINCRBY', key('room-pace', ARGV[i]), 'out', -ARGV[i + 1])
    if redis.call('ZSCORE', key('room-due'), ARGV[i]) then
      redis.call('ZADD', key('room-due'), whole(now), ARGV[i])
      poke(now)
    end
  end
end
return 'ok'

-- Report that the broker has taken the messages of a replay.
-- KEYS[1] the root of all keys
-- ARGV    batch, then id and number of each replay
-- Returns how many were new: a replay that was started before this report has reported itself
local new = 0
for i = 2, #ARGV, 2 do
  local e = redis.call('HMGET', entry_key(ARGV[i]), 'replays', 'published', 'claimed_until')
  if e[1] == ARGV[i + 1] and e[3] then
    if e[2] ~= '1' then new = new + 1 end
    redis.call('HSET', entry_key(ARGV[i]), 'published', 1)
    redis.call('HDEL', entry_key(ARGV[i]), 'claimed_until')
    note(ARGV[i], 'published', 'replay ' .. e[1])
  end
end
redis.call('HINCRBY', KEYS[1] .. ':batch:' .. ARGV[1], 'published', (#ARGV - 1) / 2)
redis.call('EXPIRE', KEYS[1] .. ':batch:' .. ARGV[1], 86400)
return new

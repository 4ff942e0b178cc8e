-- Report that the broker has taken the messages of a replay.
-- KEYS[1] the root of all keys
-- ARGV    batch, then id, number and task id of each replay
-- Returns how many were new: a replay that was started before this report has reported itself
local new = 0
for i = 2, #ARGV, 3 do
  local id = ARGV[i]
  local e = redis.call('HMGET', entry_key(id), 'replays', 'published', 'state')
  if e[1] == ARGV[i + 1] and e[3] == 'replaying' then
    if e[2] ~= '1' then new = new + 1 end
    under_way(id)
    redis.call('HSET', entry_key(id), 'live', ARGV[i + 2])
    note(id, 'published', 'replay ' .. e[1])
  end
end
redis.call('HINCRBY', KEYS[1] .. ':batch:' .. ARGV[1], 'published', (#ARGV - 1) / 3)
redis.call('EXPIRE', KEYS[1] .. ':batch:' .. ARGV[1], 86400)
return new

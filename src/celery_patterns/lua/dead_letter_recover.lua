-- Reopen entries whose replayer ended between taking them and reporting their publication.
-- KEYS[1] the root of all keys
-- ARGV    how many to look at, where to begin
-- Returns {how many were looked at, ids...}: the ids are open again. Whether a message of that replay
-- is on its way is unknown; if it is, it takes the entry back when it starts.
local now = math.floor(now_us() / 1000)
local found = redis.call('ZRANGE', index('replaying'), ARGV[2], integer(ARGV[2] + ARGV[1] - 1))
local reopened = {#found}
for _, id in ipairs(found) do
  local e = redis.call('HMGET', entry_key(id), 'published', 'claimed_until', 'replays')
  if e[1] ~= '1' and e[2] and tonumber(e[2]) <= now then
    redis.call('HSET', entry_key(id), 'unsure', e[3])
    redis.call('HDEL', entry_key(id), 'claimed_until')
    move(id, 'open')
    note(id, 'reopened', 'the replayer ended before it reported whether replay ' .. e[3] .. ' was published')
    reopened[#reopened + 1] = id
  end
end
return reopened

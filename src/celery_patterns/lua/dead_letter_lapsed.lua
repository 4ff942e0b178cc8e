-- Find entries whose replay has given no sign for longer than its lease.
-- KEYS[1] the root of all keys
-- ARGV    how many to look at, where to begin
-- Returns how many were looked at, then for each that was found: id, replay, and its task id there,
--         which is empty when its publication was not reported
local now = math.floor(now_us() / 1000)
local found = redis.call('ZRANGE', index('replaying'), ARGV[2], integer(ARGV[2] + ARGV[1] - 1))
local lapsed = {#found}
for _, id in ipairs(found) do
  local e = redis.call('HMGET', entry_key(id), 'claimed_until', 'replays', 'live')
  if e[1] and tonumber(e[1]) <= now then
    lapsed[#lapsed + 1] = id
    lapsed[#lapsed + 1] = e[2]
    lapsed[#lapsed + 1] = e[3] or ''
  end
end
return lapsed

-- Take entries for a replay; they are published next, and then reported by dead_letter_published.lua.
-- KEYS[1] the root of all keys
-- ARGV    batch, claim_ms, lease_ms, states from which entries may be taken ("open" or "open quarantined"),
--         cut_off (us; 0 for none), ids...
-- Returns a flat list: id and the number of its replay, for each that was taken
local taken = {}
local now = now_us()
for i = 6, #ARGV do
  local key = entry_key(ARGV[i])
  local e = redis.call('HMGET', key, 'state', 'died')
  local late = tonumber(ARGV[5]) > 0 and e[2] and tonumber(e[2]) > tonumber(ARGV[5])
  if e[1] and string.find(ARGV[4], e[1], 1, true) and not late then
    local number = redis.call('HINCRBY', key, 'replays', 1)
    redis.call('HSET', key, 'batch', ARGV[1], 'published', 0, 'lease_ms', ARGV[3],
      'claimed_until', integer(math.floor(now / 1000) + ARGV[2]))
    redis.call('HDEL', key, 'live', 'unsure')
    move(ARGV[i], 'replaying')
    note(ARGV[i], 'claimed', 'replay ' .. number .. ' of batch ' .. ARGV[1])
    taken[#taken + 1] = ARGV[i]
    taken[#taken + 1] = number
  end
end
redis.call('EXPIRE', KEYS[1] .. ':batch:' .. ARGV[1], 86400)
return taken

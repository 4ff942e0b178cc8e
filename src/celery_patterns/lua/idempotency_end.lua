-- Record how a run ended.
-- KEYS[1] the record
-- ARGV    owner, fence, state ("completed", "failed", or "absent" to forget the run), ttl_ms,
--         of ("1 <fingerprint>"), attempt, end
-- Returns 1, also when it was recorded before; 2 if somebody waits for it; {"lost", owner} when another run
--         holds the key.
-- A record that vanished (the server forgot it) was taken by nobody, so its holder may still end it.
local r = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'state', 'awaited')
local recorded = r[4] and 2 or 1
if r[1] and (r[1] ~= ARGV[1] or r[2] ~= ARGV[2]) then return {'lost', r[1]} end
if ARGV[3] == 'absent' then
  if not r[3] then redis.call('DEL', KEYS[1]) end
  return recorded
end
redis.call('HSET', KEYS[1], 'state', ARGV[3], 'end', ARGV[7], 'attempt', ARGV[6])
if not r[1] then
  redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', ARGV[2], 'of', ARGV[5],
    'until', string.format('%.0f', math.floor(now_us() / 1000)))
end
if r[4] then redis.call('HDEL', KEYS[1], 'awaited') end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return recorded

-- Record how a run ended.
-- KEYS[1] the record
-- ARGV    owner, fence, state ("completed", "failed", or "absent" to forget the run), ttl_ms,
--         args, attempt, form, body
-- Returns {"ok"}, also when it was recorded before; {"lost", owner} when another run holds the key.
-- A record that vanished (the server forgot it) was taken by nobody, so its holder may still end it.
local r = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'state')
if r[1] and (r[1] ~= ARGV[1] or r[2] ~= ARGV[2]) then return {'lost', r[1]} end
if ARGV[3] == 'absent' then
  if r[3] == 'running' then redis.call('DEL', KEYS[1]) end
  return {'ok'}
end
if r[1] then
  redis.call('HSET', KEYS[1], 'state', ARGV[3], 'form', ARGV[7], 'body', ARGV[8])
else
  local lease = string.format('%.0f', math.floor(now_us() / 1000))
  redis.call('HSET', KEYS[1], 'v', '1', 'state', ARGV[3], 'owner', ARGV[1], 'fence', ARGV[2], 'args', ARGV[5],
    'until', lease, 'attempt', ARGV[6], 'form', ARGV[7], 'body', ARGV[8])
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'ok'}

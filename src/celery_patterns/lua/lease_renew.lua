-- Give a holder another full length.
-- KEYS[1] the hash with the lease
-- ARGV    owner, fence, lease_ms, keep_ms
-- Returns "ok", or "lost" when another owner or fence holds it, or nobody does.
local held = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return 'lost'
end
local until_ms = math.floor(now_us() / 1000) + ARGV[3]
redis.call('HSET', KEYS[1], 'until', string.format('%.0f', until_ms))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 'ok'

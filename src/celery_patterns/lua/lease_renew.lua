-- Give a holder another full length.
-- KEYS[1] the hash with the lease
-- KEYS[2] if there is one: the sorted set of all who hold such a lease, task ids by end
-- ARGV    owner, fence, lease_ms, keep_ms, task id
-- Returns "ok", or "lost" when another owner or fence holds it, or nobody does.
local held = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if held[1] ~= ARGV[1] or held[2] ~= ARGV[2] then
  return 'lost'
end
local until_ms = string.format('%.0f', math.floor(now_us() / 1000) + ARGV[3])
redis.call('HSET', KEYS[1], 'until', until_ms)
if KEYS[2] then redis.call('ZADD', KEYS[2], 'XX', until_ms, ARGV[5]) end
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < tonumber(ARGV[4]) then
    redis.call('PEXPIRE', key, ARGV[4])
  end
end
return 'ok'

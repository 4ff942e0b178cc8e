-- End the lease of an owner whose process is gone; what it guarded stays.
-- KEYS[1] the hash with the lease
-- ARGV    owner, grace_ms
-- Returns "ok", or "lost" when it is not this owner's.
local held = redis.call('HMGET', KEYS[1], 'owner', 'until')
if held[1] ~= ARGV[1] then
  return 'lost'
end
local until_ms = math.floor(now_us() / 1000) + ARGV[2]
if until_ms < tonumber(held[2]) then
  redis.call('HSET', KEYS[1], 'until', string.format('%.0f', until_ms))
end
return 'ok'

-- Begin a run, or learn what became of the key before.
-- KEYS[1] the record: v, state, owner, fence, until, args, attempt, and once it ended form, body
-- ARGV    owner, args (fingerprint), lease_ms, keep_ms, on_lapsed, attempt
-- Returns {"started", fence, lapsed owner or false}; asking again as the same owner changes nothing
--         {"running", owner, lease left in ms}; {"lapsed", owner}
--         {"completed" or "failed", owner, form, body, ms for which its holder may still hand it on, attempt}
--         {"reused", owner}: the key was used with other arguments; {"version", v}
local r = redis.call('HMGET', KEYS[1], 'v', 'state', 'owner', 'fence', 'until', 'args', 'form', 'body', 'attempt')
local now = now_us()
local ms = math.floor(now / 1000)
local state = r[2]
local lapsed = false
if state then
  if r[1] ~= '1' then return {'version', r[1]} end
  if r[6] ~= ARGV[2] then return {'reused', r[3]} end
  local left = math.max(0, tonumber(r[5]) - ms)
  if state == 'running' then
    if r[3] == ARGV[1] then return {'started', r[4], false} end
    if left > 0 then return {'running', r[3], left} end
    if ARGV[5] ~= 'rerun' then return {'lapsed', r[3]} end
    lapsed = r[3]
  else
    local retried = state == 'failed' and tonumber(ARGV[6]) > tonumber(r[9])
      and string.match(r[3], '^(.*)/') == string.match(ARGV[1], '^(.*)/')
    if not retried then return {state, r[3], r[7], r[8], left, r[9]} end
    redis.call('HDEL', KEYS[1], 'form', 'body')
  end
end
local fence = string.format('%.0f', math.max((tonumber(r[4]) or 0) + 1, now))
redis.call('HSET', KEYS[1], 'v', '1', 'state', 'running', 'owner', ARGV[1], 'fence', fence, 'args', ARGV[2],
  'until', string.format('%.0f', ms + ARGV[3]), 'attempt', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'started', fence, lapsed}

-- Begin a run, or learn what became of the key before and claim the right to hand that on.
-- KEYS[1] the record: v, state, owner, fence, until, args, attempt, and once it ended form, body
-- KEYS[2] the claim of this task id to hand the recorded end on: owner, until
-- ARGV    owner, args (fingerprint), lease_ms, keep_ms, on_lapsed, attempt, claim_ms
-- Returns {"started", fence, lapsed owner or false}; asking again as the same owner changes nothing
--         {"running", owner, lease left in ms}; {"lapsed", owner}
--         {"completed" or "failed", owner, form, body, again}: again is 1 when an earlier delivery of
--           this task id may have handed it on already
--         {"claimed", owner, ms left}: another delivery of this task id is handing it on
--         {"reused", owner}: the key was used with other arguments; {"version", v}
local r = redis.call('HMGET', KEYS[1], 'v', 'state', 'owner', 'fence', 'until', 'args', 'form', 'body', 'attempt')
local now = now_us()
local ms = math.floor(now / 1000)
local lease_end = string.format('%.0f', ms + ARGV[3])
local state = r[2]
local lapsed = false

local function hand_on(own)
  local left = own and tonumber(r[5]) - ms or 0
  if left > 0 then return {'claimed', r[3], left} end
  local claim = redis.call('HMGET', KEYS[2], 'owner', 'until')
  if claim[1] and claim[1] ~= ARGV[1] and tonumber(claim[2]) > ms then
    return {'claimed', claim[1], claim[2] - ms}
  end
  redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'until', lease_end)
  redis.call('PEXPIRE', KEYS[2], ARGV[7])
  local again = own or (claim[1] and claim[1] ~= ARGV[1])
  return {state, r[3], r[7], r[8], again and 1 or 0}
end

if state then
  if r[1] ~= '1' then return {'version', r[1]} end
  if r[6] ~= ARGV[2] then return {'reused', r[3]} end
  local own = string.match(r[3], '^(.*)/') == string.match(ARGV[1], '^(.*)/')
  if state == 'running' then
    local left = tonumber(r[5]) - ms
    if r[3] == ARGV[1] then return {'started', r[4], false} end
    if left > 0 then return {'running', r[3], left} end
    if ARGV[5] ~= 'rerun' then return {'lapsed', r[3]} end
    lapsed = r[3]
  elseif state == 'failed' and own and tonumber(ARGV[6]) > tonumber(r[9]) then
    redis.call('HDEL', KEYS[1], 'form', 'body') -- its own retry
  else
    return hand_on(own)
  end
end
local fence = string.format('%.0f', math.max((tonumber(r[4]) or 0) + 1, now))
redis.call('HSET', KEYS[1], 'v', '1', 'state', 'running', 'owner', ARGV[1], 'fence', fence, 'args', ARGV[2],
  'until', lease_end, 'attempt', ARGV[6])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {'started', fence, lapsed}

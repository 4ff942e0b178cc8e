-- Begin a run, or learn what became of the key before and claim the right to hand that on.
-- KEYS[1] the record: owner, fence, until; of, the version and fingerprint of the call;
--         and once it ended state, end, attempt; awaited, while it runs: somebody waits for its end
-- KEYS[2] the claim of this task id to hand the recorded end on: owner, until
-- ARGV    owner, of ("1 <fingerprint>"), lease_ms, keep_ms, on_lapsed, attempt, claim_ms
-- Returns the fence of a run that starts; asking again as the same owner changes nothing
--         {"rerun", fence, owner}: it starts, and owner's run had lapsed
--         {"running", owner, lease left in ms}; {"lapsed", owner}
--         {"completed" or "failed", owner, end, again}: again is 1 when an earlier delivery of
--           this task id may have handed it on already
--         {"claimed", owner, ms left}: another delivery of this task id is handing it on
--         {"reused", owner}: the key was used with other arguments; {"version", of}
local r = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'until', 'of', 'state', 'end', 'attempt')
local now = now_us()
local ms = math.floor(now / 1000)
local lapsed
if r[1] then
  if r[4] ~= ARGV[2] then
    return {string.sub(r[4], 1, 2) == '1 ' and 'reused' or 'version', string.sub(r[4], 1, 2) == '1 ' and r[1] or r[4]}
  end
  local own = string.match(r[1], '^(.*)/') == string.match(ARGV[1], '^(.*)/')
  local left = r[3] - ms
  if not r[5] then
    if r[1] == ARGV[1] then return tonumber(r[2]) end
    if left > 0 then
      redis.call('HSET', KEYS[1], 'awaited', 1)
      return {'running', r[1], left}
    end
    if ARGV[5] ~= 'rerun' then return {'lapsed', r[1]} end
    lapsed = r[1]
  elseif r[5] == 'failed' and own and tonumber(ARGV[6]) > tonumber(r[7]) then
    redis.call('HDEL', KEYS[1], 'state', 'end', 'attempt') -- its own retry
  else
    if own and left > 0 then return {'claimed', r[1], left} end
    local claim = redis.call('HMGET', KEYS[2], 'owner', 'until')
    local other = claim[1] and claim[1] ~= ARGV[1]
    if other and tonumber(claim[2]) > ms then return {'claimed', claim[1], claim[2] - ms} end
    redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'until', string.format('%.0f', ms + ARGV[3]))
    redis.call('PEXPIRE', KEYS[2], ARGV[7])
    return {r[5], r[1], r[6], (own or other) and 1 or 0}
  end
end
local fence = math.max((tonumber(r[2]) or 0) + 1, now)
redis.call('HSET', KEYS[1], 'owner', ARGV[1], 'fence', string.format('%.0f', fence),
  'until', string.format('%.0f', ms + ARGV[3]), 'of', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return lapsed and {'rerun', string.format('%.0f', fence), lapsed} or fence

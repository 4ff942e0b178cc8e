-- Take the lock for a call that is about to be published, or learn who has it.
-- KEYS[1] the lock: v, owner, fence, until, since, host; at: when the newest that counts arrived;
--         next, next_at, next_until: whose turn comes after the owner's
-- KEYS[2] the marker of this task id: "ended <ms>" or "replaced <task id>"; publishing begins a new life
-- ARGV    id, queued_ms, on_conflict, marker_ms, host
-- Returns {"queued", at}: the lock, or the turn after the holder's, is this call's since then (microseconds)
--         {"held", owner, left in ms}; {"version", v}
local r = redis.call('HMGET', KEYS[1], 'v', 'owner', 'until', 'next', 'next_until')
local now = now_us()
local ms = math.floor(now / 1000)
local at, until_ms = string.format('%.0f', now), string.format('%.0f', ms + ARGV[2])
local owner, left, next_left = r[2], r[2] and r[3] - ms or 0, r[4] and r[5] - ms or 0

local function replaced(id, for_ms)
  redis.call('SET', KEYS[1] .. ':ended:' .. id, 'replaced ' .. ARGV[1], 'PX', math.max(ARGV[4], for_ms))
end

if r[1] and r[1] ~= '1' then return {'version', r[1]} end
redis.call('DEL', KEYS[2])
if left <= 0 and next_left > 0 then -- the holder has vanished, and another waits for its turn
  owner, left, next_left = r[4] .. '/', next_left, 0
  redis.call('HSET', KEYS[1], 'owner', owner, 'until', r[5])
  redis.call('HDEL', KEYS[1], 'next', 'next_at', 'next_until')
end
local queued = owner and string.sub(owner, -1) == '/'
local own = owner and string.match(owner, '^(.*)/') == ARGV[1]
if left > 0 and not own and not (ARGV[3] == 'replace' and queued) then
  if ARGV[3] ~= 'replace' and ARGV[3] ~= 'keep_latest' then return {'held', owner, left} end
  if next_left > 0 and r[4] ~= ARGV[1] then replaced(r[4], next_left) end
  redis.call('HSET', KEYS[1], 'next', ARGV[1], 'next_at', at, 'next_until', until_ms, 'at', at)
elseif left <= 0 or queued then -- else it runs, and publishes itself anew
  if left > 0 and not own then replaced(string.sub(owner, 1, -2), left) end
  redis.call('HSET', KEYS[1], 'v', '1', 'owner', ARGV[1] .. '/', 'until', until_ms,
    'since', string.format('%.0f', ms), 'at', at, 'host', ARGV[5])
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return {'queued', at}

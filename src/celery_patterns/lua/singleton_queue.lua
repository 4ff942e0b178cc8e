-- Take the lock for a call that is about to be published, or learn who has it.
-- KEYS[1] the lock: owner, fence, until; of, the version and who took it; at, when the newest arrived (us);
--         next, "<until> <at> <task id>": whose turn comes after the owner's; awaited: somebody waits
-- KEYS[2] the marker of this task id: "ended <replay>" or "replaced <task id>"; publishing begins a new life
-- ARGV    id, queued_ms, on_conflict, of ("1 <host>"), remember_ms
-- Returns at: the lock, or the turn after the holder's, is this call's since then
--         {"held", owner, left in ms}; {"version", of}
local r = redis.call('HMGET', KEYS[1], 'owner', 'until', 'of', 'next')
local now = now_us()
local ms = math.floor(now / 1000)
local at, until_ms = string.format('%.0f', now), string.format('%.0f', ms + ARGV[2])
local owner, left = r[1], r[1] and r[2] - ms or 0
local next_until, _, next_id = string.match(r[4] or '', '^(%d+) (%d+) (.*)$')
local next_left = next_until and next_until - ms or 0

local function replaced(id, for_ms)
  redis.call('SET', KEYS[1] .. ':ended:' .. id, 'replaced ' .. ARGV[1], 'PX', math.max(ARGV[5], for_ms))
end

if owner and string.sub(r[3], 1, 2) ~= '1 ' then return {'version', r[3]} end
redis.call('DEL', KEYS[2])
if left <= 0 and next_left > 0 then -- the holder has vanished, and another waits for its turn
  owner, left, next_left = next_id .. '/', next_left, 0
  redis.call('HSET', KEYS[1], 'owner', owner, 'until', next_until)
  redis.call('HDEL', KEYS[1], 'next')
end
local queued = owner and string.sub(owner, -1) == '/'
local own = owner and string.match(owner, '^(.*)/') == ARGV[1]
if left > 0 and not own and not (ARGV[3] == 'replace' and queued) then
  if ARGV[3] ~= 'replace' and ARGV[3] ~= 'keep_latest' then return {'held', owner, left} end
  if next_left > 0 and next_id ~= ARGV[1] then replaced(next_id, next_left) end
  redis.call('HSET', KEYS[1], 'next', until_ms .. ' ' .. at .. ' ' .. ARGV[1], 'at', at)
elseif left <= 0 or queued then -- else it runs, and publishes itself anew
  if left > 0 and not own then replaced(string.sub(owner, 1, -2), left) end
  redis.call('HSET', KEYS[1], 'owner', ARGV[1] .. '/', 'until', until_ms, 'of', ARGV[4], 'at', at)
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return now

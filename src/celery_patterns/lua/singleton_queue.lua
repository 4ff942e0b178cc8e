-- Take the lock for a call that is about to be published, or learn who has it.
-- KEYS[1] the lock: owner, fence, until; of, the version and who took it; at, when the newest arrived (us);
--         next, "<until> <at> <task id>": the newest, whose turn comes after the owner's, where it is that one's;
--         awaited: somebody waits; lapsed: the owner that had it last, and vanished
-- KEYS[2] the marker of this task id: "ended <replay> <owner>" or "replaced <task id>"; publishing begins a new life
-- ARGV    id, queued_ms, on_conflict, of ("1 <host>"), remember_ms
-- An owner that has ended, and whose process may live on for a moment, is not handed out: the turn after it is taken.
-- Returns at: the lock, or the turn after the holder's, is this call's since then
--         {"held", owner, left in ms}; {"version", of}
local r = redis.call('HMGET', KEYS[1], 'owner', 'until', 'of', 'next')
local now = now_us()
local ms = math.floor(now / 1000)
local at, until_ms = string.format('%.0f', now), string.format('%.0f', ms + ARGV[2])
local owner, left, newest = r[1], r[1] and r[2] - ms or 0, ARGV[3] == 'replace' or ARGV[3] == 'keep_latest'
local next_left, next_id = 0, nil

local function replaced(id, for_ms)
  redis.call('SET', KEYS[1] .. ':ended:' .. id, 'replaced ' .. ARGV[1], 'PX', math.max(ARGV[5], for_ms))
end

if owner and string.sub(r[3], 1, 2) ~= '1 ' then return {'version', r[3]} end
redis.call('DEL', KEYS[2])
if r[4] or owner and left <= 0 then next_left, next_id = next_turn(ms, r[4]) end
if owner and left <= 0 and has_vanished(owner) then redis.call('HSET', KEYS[1], 'lapsed', owner) end
if left <= 0 and next_left > 0 then -- another waits for its turn
  pass_on(ms, next_left, next_id)
  owner, left, next_left = next_id .. '/', next_left, 0
end
local queued = owner and string.sub(owner, -1) == '/'
local own = owner and string.match(owner, '^(.*)/') == ARGV[1]
if left > 0 and not own and not (ARGV[3] == 'replace' and queued) then
  if not newest then
    if ARGV[3] == 'defer' or not has_ended(owner) then return {'held', owner, left} end
    if next_left > 0 and next_id ~= ARGV[1] then return {'held', next_id .. '/', next_left} end
  elseif next_left > 0 and next_id ~= ARGV[1] then
    replaced(next_id, next_left)
  end
  redis.call('HSET', KEYS[1], 'next', until_ms .. ' ' .. at .. ' ' .. ARGV[1], 'at', at)
elseif left <= 0 or queued then -- else it runs, and publishes itself anew
  if left > 0 and not own then replaced(string.sub(owner, 1, -2), left) end
  redis.call('HSET', KEYS[1], 'owner', ARGV[1] .. '/', 'until', until_ms, 'of', ARGV[4], 'at', at)
end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return now

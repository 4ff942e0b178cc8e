-- Take tokens from k limits for a task that would start, ahead of nobody who waits in the room.
-- KEYS[1] the room; KEYS[2] the operation's slot
-- ARGV    demands (JSON), ticket ("" for none), the operation's number
-- Returns {"ok", granted at (us), us until then}: with a ticket it may be up to 50 ms ahead; without one, never
--         {"wait", us, which limit, us per token}: nothing was taken
--         {"version"}: a newer version of the library wrote a bucket
-- Any ticket will do, and one that has lapsed too: what counts is the token. Without a ticket a task starts
-- only if nobody waits and all tickets leave it a token, or if a ticket's holder takes longer than usual to come.
local now = now_us()
local at, last = string.match(redis.call('GET', KEYS[2]) or '0 0', '^(%d+) (%d+)$')
if last - ARGV[3] >= 0 then return {'ok', tonumber(at), math.max(0, at - now)} end
local buckets = look(cjson.decode(ARGV[1]), now)
if not buckets then return {'version'} end
local pump = has_pump()

local function learn(b)
  if b.waiting == 0 then return end
  if b.early < 0 then
    b.margin = math.min(b.widest, b.margin - b.early / 2)
  else
    b.margin = b.margin - (b.margin - MARGIN) / 256
  end
  if b.early < b.margin then
    b.slack = b.slack + (b.margin - b.early) / 2
  elseif b.lack > b.margin then
    b.slack = b.slack - (b.lack - b.margin) / 16
  else
    b.slack = b.slack - math.min(b.early - b.margin, b.slack) / 64
  end
  b.slack = math.max(0, math.min(b.furthest, b.slack))
end

local function hand_in(b)
  local tickets, ticket = key('room-tickets', b.id), whole(b.cost) .. ' ' .. ARGV[2]
  local issued = redis.call('ZSCORE', tickets, ticket)
  if issued then
    redis.call('ZREM', tickets, ticket)
    b.out = math.max(0, b.out - b.cost)
    b.life = math.min(LONGEST_LIFE, math.max(LIFE, b.life / 2, 4 * (now - issued)))
    b.age = b.age + (now - issued - b.age) / 8
    local longer = now - issued - b.way -- the shortest way of late: what sleepers make longer is not the way
    b.way = b.way + longer / ((b.way == 0 and 1) or (longer < 0 and 2) or 64)
  end
  learn(b)
  if issued or b.waiting > 0 then save_pace(b) end
end

local may, ahead = true, 0
for _, b in ipairs(buckets) do
  if ARGV[2] ~= '' then
    hand_in(b)
    may = may and b.real <= SLEEP
  elseif pump and (b.waiting > 0 or b.out > 0 and b.held > 0) then
    may = may and b.real <= 0 and b.oldest and now - b.oldest > math.max(SOFT, 2 * b.age)
  else
    may = may and b.real <= 0
  end
  ahead = math.max(ahead, b.real)
end
if not may then
  save_changed(buckets, now)
  local wait, which = longest(buckets, pump and behind or function(b) return b.real end)
  return {'wait', math.max(1, wait), which, math.ceil(buckets[which].per / buckets[which].n)}
end
for _, b in ipairs(buckets) do take(b, now + ahead, now) end
redis.call('PSETEX', KEYS[2], 10000, whole(now + ahead) .. ' ' .. ARGV[3])
return {'ok', now + ahead, ahead}

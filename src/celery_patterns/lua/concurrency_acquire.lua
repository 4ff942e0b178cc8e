-- Take one of the places under a limit, or a place in the line of those who wait for one.
-- KEYS[1] the limit, "1 <fence> <limit>"; beside it <KEYS[1]>:held, task ids by the end of their lease,
--         :line, task ids by arrival (us), and :looks, task ids by when they have to look again (ms)
-- KEYS[2] the lease of this task id, <KEYS[1]>:held:<id>: owner, fence, until, host
-- KEYS[3] the marker of this task id, "ended <replay> <owner>"
-- ARGV    owner, lease_ms, keep_ms, limit, host, and if need be "again" where a remembered end does not count,
--         and for those who wait: waited_ms, near_ms and far_ms: the least and the most until the next look,
--         slack_ms: how late a look may come, pace_ms: how much later each further round of places looks
-- Returns the fence of a run that starts; asking again as the same owner changes nothing
--         {"lapsed", fence, owner}: it starts, and an owner's lease had lapsed
--         {"copy", owner, left in ms}: another delivery of this task id runs
--         {"ended", ms for which that is remembered, replay}; {"version", limit}
--         {"full", ms until the next look (0: it does not wait), how many are ahead, task ids of those among
--         them for whom places are free}
local now = now_us()
local ms = math.floor(now / 1000)
local mark = redis.call('GET', KEYS[3])
local limit = redis.call('GET', KEYS[1])
local mine = redis.call('HMGET', KEYS[2], 'owner', 'until', 'fence')
local held, line, lapsed = KEYS[1] .. ':held', KEYS[1] .. ':line', not mark and mine[1]

if mark and ARGV[6] ~= 'again' then
  return {'ended', redis.call('PTTL', KEYS[3]), tonumber(string.match(mark, '%d+'))}
end
if limit and string.sub(limit, 1, 2) ~= '1 ' then return {'version', limit} end
if mine[1] and mine[2] - ms > 0 then
  if mine[1] == ARGV[1] then return tonumber(mine[3]) end
  return {'copy', mine[1], mine[2] - ms}
end
if redis.call('ZCARD', held) >= tonumber(ARGV[4]) or redis.call('EXISTS', line) == 1 then
  local id, looks = string.match(ARGV[1], '^(.*)/'), KEYS[1] .. ':looks'
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', held, '-inf', ms)) do
    if redis.call('EXISTS', KEYS[1] .. ':ended:' .. gone) == 0 then -- else its process is known to be gone
      lapsed = lapsed or redis.call('HGET', held .. ':' .. gone, 'owner')
    end
    redis.call('ZREM', held, gone)
    redis.call('DEL', held .. ':' .. gone)
  end
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', looks, '-inf', ms)) do
    redis.call('ZREM', line, gone)
    redis.call('ZREM', looks, gone)
  end
  local arrived = string.format('%.0f', now - (ARGV[7] or 0) * 1000)
  local ahead = redis.call('ZRANK', line, id) or redis.call('ZCOUNT', line, '-inf', arrived)
  local free = ARGV[4] - redis.call('ZCARD', held)
  if ahead >= free then
    local next = free > 0 and redis.call('ZRANGE', line, 0, free - 1) or {}
    if not ARGV[7] then return {'full', 0, ahead, next} end
    local wait = math.min(ARGV[9], ARGV[8] + math.floor(ahead / ARGV[4]) * ARGV[11])
    local keep = string.format('%.0f', wait + ARGV[10])
    redis.call('ZADD', line, 'NX', arrived, id)
    redis.call('ZADD', looks, string.format('%.0f', ms + keep), id)
    for _, key in ipairs({line, looks}) do
      if redis.call('PTTL', key) < tonumber(keep) then redis.call('PEXPIRE', key, keep) end
    end
    return {'full', wait, ahead, next}
  end
  redis.call('ZREM', line, id)
  redis.call('ZREM', looks, id)
end
local fence = math.max((limit and tonumber(string.match(limit, ' (%d+) ')) or 0) + 1, now)
local fence_text, until_ms = string.format('%.0f', fence), string.format('%.0f', ms + ARGV[2])
redis.call('SET', KEYS[1], '1 ' .. fence_text .. ' ' .. ARGV[4], 'PX', ARGV[3])
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'fence', fence_text, 'until', until_ms, 'host', ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
redis.call('ZADD', held, until_ms, string.match(ARGV[1], '^(.*)/'))
if redis.call('PTTL', held) < tonumber(ARGV[3]) then redis.call('PEXPIRE', held, ARGV[3] * 2) end
if mark then redis.call('DEL', KEYS[3]) end
return lapsed and {'lapsed', fence_text, lapsed} or fence

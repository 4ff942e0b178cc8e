-- What all scripts about dead letters share; KEYS[1] is the root of their keys, which share its hash tag.
-- ARGV    belongs to the script that follows, which also says what it Returns
--   <root>:entry:<id>              the entry, a hash; with :history, a list of [ms, what, words]
--   <root>:in:<state>              ids in that state by the time of their last death (us)
--   <root>:in:<state>:<cause>      the same, of one cause
--   <root>:causes                  cause -> what it is, as JSON
--   <root>:expiring                ids of ended entries by the time when they are deleted (ms)
--   <root>:batch:<id>              counts of one replay: published, resolved, failed, open
local function entry_key(id) return KEYS[1] .. ':entry:' .. id end
local function index(state, cause) return KEYS[1] .. ':in:' .. state .. (cause and ':' .. cause or '') end
local function integer(number) return string.format('%.0f', number) end
local function unlist(id, state, cause)
  redis.call('ZREM', index(state), id)
  redis.call('ZREM', index(state, cause), id)
end
local function list(id, state, cause, died)
  redis.call('ZADD', index(state), died, id)
  redis.call('ZADD', index(state, cause), died, id)
end
local function delete(id)
  local e = redis.call('HMGET', entry_key(id), 'state', 'cause')
  redis.call('ZREM', KEYS[1] .. ':expiring', id)
  if not e[1] then return end
  unlist(id, e[1], e[2])
  redis.call('DEL', entry_key(id), entry_key(id) .. ':history')
  for _, state in ipairs({'open', 'quarantined', 'replaying', 'resolved', 'archived'}) do
    if redis.call('EXISTS', index(state, e[2])) == 1 then return end
  end
  redis.call('HDEL', KEYS[1] .. ':causes', e[2])
end
-- Move an entry to a state. Ended entries are deleted after their retention, others never.
local function move(id, state)
  local e = redis.call('HMGET', entry_key(id), 'state', 'cause', 'died', 'retention_ms')
  unlist(id, e[1], e[2])
  list(id, state, e[2], e[3])
  redis.call('HSET', entry_key(id), 'state', state)
  local now = math.floor(now_us() / 1000)
  if state == 'resolved' or state == 'archived' then
    redis.call('ZADD', KEYS[1] .. ':expiring', integer(now + e[4]), id)
  else
    redis.call('ZREM', KEYS[1] .. ':expiring', id)
  end
  for _, due in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1] .. ':expiring', '-inf', integer(now), 'LIMIT', 0, 20)) do
    delete(due)
  end
end
-- There is a sign of a replay: its entry stays in replaying for another length of the lease.
local function under_way(id)
  local lease = redis.call('HGET', entry_key(id), 'lease_ms') or 86400000
  redis.call('HSET', entry_key(id), 'published', 1, 'claimed_until', integer(math.floor(now_us() / 1000) + lease))
end
-- One line in the history of an entry: when (ms), what, and words about it. The last 50 are kept.
local function note(id, what, words)
  local key = entry_key(id) .. ':history'
  redis.call('RPUSH', key, cjson.encode({math.floor(now_us() / 1000), what, words or ''}))
  redis.call('LTRIM', key, -50, -1)
end

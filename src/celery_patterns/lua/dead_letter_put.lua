-- Store the death of a task.
-- KEYS[1] the root of all keys (see dead_letter_index.lua)
-- ARGV    id, cause, cause_json, by (the delivery), replay (its number, 0 for none), quarantine_after,
--         words, then the fields of the entry and their values
-- Returns {"known", state} when this very delivery has told before, or a later replay is under way;
--         else {"open" or "quarantined", deaths}
local id, cause, replay = ARGV[1], ARGV[2], tonumber(ARGV[5])
local key = entry_key(id)
local e = redis.call('HMGET', key, 'state', 'cause', 'by', 'replays', 'failed_replays', 'batch', 'v', 'unsure')
if e[7] and e[7] ~= '1' then return {'version', e[7]} end
if e[1] and (e[3] == ARGV[4] or replay < tonumber(e[4])) then return {'known', e[1]} end
local died = math.max(now_us(), (tonumber(redis.call('GET', KEYS[1] .. ':last')) or 0) + 1)
redis.call('SET', KEYS[1] .. ':last', integer(died))
local in_replay = e[1] == 'replaying' or (e[1] == 'open' and e[8] == ARGV[5])
local failed = in_replay and tonumber(e[5]) + 1 or tonumber(e[5] or 0)
if e[1] then unlist(id, e[1], e[2]) end
local fields = {}
for i = 8, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', key, 'v', '1', 'id', id, 'state', 'open', 'cause', cause, 'by', ARGV[4],
  'died', integer(died), 'failed_replays', failed, unpack(fields))
if not e[1] then redis.call('HSET', key, 'first_died', integer(died), 'replays', replay, 'batch', '') end
list(id, 'open', cause, integer(died))
redis.call('HSET', KEYS[1] .. ':causes', cause, ARGV[3])
note(id, 'died', ARGV[7])
redis.call('HDEL', key, 'unsure')
if in_replay and e[6] ~= '' then redis.call('HINCRBY', KEYS[1] .. ':batch:' .. e[6], 'failed', 1) end
local state = failed >= tonumber(ARGV[6]) and 'quarantined' or 'open'
move(id, state)
return {state, redis.call('HINCRBY', key, 'deaths', 1)}

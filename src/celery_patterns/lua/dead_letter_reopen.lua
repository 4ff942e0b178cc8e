-- Reopen an entry of whose replay nobody has heard for longer than its lease.
-- KEYS[1] the root of all keys
-- ARGV    id, replay
-- Returns 1, or 0 when somebody has heard of it meanwhile
-- Whether a message of that replay is on its way is unknown; if it is, it takes the entry back when it starts.
local id, now = ARGV[1], math.floor(now_us() / 1000)
local e = redis.call('HMGET', entry_key(id), 'state', 'replays', 'claimed_until', 'published')
if e[1] ~= 'replaying' or e[2] ~= ARGV[2] or tonumber(e[3]) > now then return 0 end
redis.call('HSET', entry_key(id), 'unsure', e[2])
redis.call('HDEL', entry_key(id), 'claimed_until')
move(id, 'open')
local words = 'the replayer ended before it reported whether replay ' .. e[2] .. ' was published'
if e[4] == '1' then words = 'replay ' .. e[2] .. ' has not been heard of since' end
note(id, 'reopened', words)
return 1

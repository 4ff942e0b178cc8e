-- Take back what may have been parked, since it was published as well: the answer was lost.
-- KEYS[1] the room
-- ARGV    id, nonce
-- Returns 1 if it waited; 0 if it never came in, or is released already
local id, entry = ARGV[1], key('room-entry', ARGV[1])
local nonce, out, line = unpack(redis.call('HMGET', entry, 'nonce', 'out', 'line'))
if nonce ~= ARGV[2] or out then return 0 end
redis.call('DEL', entry)
redis.call('ZREM', key('room-time'), id)
if line ~= '' then redis.call('ZREM', key('room-line', line), id) end
return 1

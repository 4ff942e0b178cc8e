-- Replace the body of an entry; the first one stays beside it.
-- KEYS[1] the root of all keys
-- ARGV    id, old body, new body, headers, words
-- Returns "ok", "changed" when the body is not the old one, or its state when that is under way or ended
local key = entry_key(ARGV[1])
local e = redis.call('HMGET', key, 'state', 'body', 'original', 'headers')
if not e[1] then return 'absent' end
if e[1] ~= 'open' and e[1] ~= 'quarantined' then return e[1] end
if e[2] ~= ARGV[2] then return 'changed' end
if not e[3] then redis.call('HSET', key, 'original', e[2], 'original_headers', e[4]) end
redis.call('HSET', key, 'body', ARGV[3], 'headers', ARGV[4])
note(ARGV[1], 'edited', ARGV[5])
return 'ok'

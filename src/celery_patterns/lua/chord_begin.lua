-- Begin a chord: write down its parts, so that what never reports can be missed.
-- KEYS[1] the chord: of (a digest of its parts' ids); total, ok, failed, revoked, lost;
--         due (ms, with a deadline); steps (fail_fast);
--         claim and until (ms) while its end is being handed on; revoked_rest; ended ("ran" or "failed");
--         again:<task id> of parts that are run again; body: the id of a body that runs again
-- KEYS[2] its parts by task id: "<index>", or "<index> running" (fail_fast), then "<index> <state> <payload>"
-- ARGV    digest, ttl_ms, deadline_ms (0: none), steps ("" or JSON), task ids in header order
-- Returns "begun"; "known" when it was begun before, "other" when another chord has this record: nothing is changed
local known = redis.call('HGET', KEYS[1], 'of')
if known then return known == ARGV[1] and 'known' or 'other' end
local first = 5
for i = first, #ARGV do
  redis.call('HSET', KEYS[2], ARGV[i], i - first)
end
redis.call('HSET', KEYS[1], 'of', ARGV[1], 'total', #ARGV - first + 1)
if tonumber(ARGV[3]) > 0 then
  redis.call('HSET', KEYS[1], 'due', string.format('%.0f', math.floor(now_us() / 1000) + ARGV[3]))
end
if ARGV[4] ~= '' then redis.call('HSET', KEYS[1], 'steps', ARGV[4]) end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 'begun'

-- Begin a chord: write down its parts, so that what never reports can be missed.
-- KEYS[1] the chord: total, ok, failed, revoked, lost; due (ms, with a deadline); steps (fail_fast);
--         claim and until (ms) while its end is being handed on; revoked_rest; ended ("ran" or "failed");
--         again:<task id> of parts that are run again; body: the id of a body that runs again
-- KEYS[2] its parts by task id: "<index>", or "<index> running" (fail_fast), then "<index> <state> <payload>"
-- ARGV    ttl_ms, deadline_ms (0: none), steps ("" or JSON), task ids in header order
-- Returns 1; 0 when it was begun before, and nothing is changed
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local first = 4
for i = first, #ARGV do
  redis.call('HSET', KEYS[2], ARGV[i], i - first)
end
redis.call('HSET', KEYS[1], 'total', #ARGV - first + 1)
if tonumber(ARGV[2]) > 0 then
  redis.call('HSET', KEYS[1], 'due', string.format('%.0f', math.floor(now_us() / 1000) + ARGV[2]))
end
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'steps', ARGV[3]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return 1

-- Take a failed part out of a chord that still waits for others, so that it waits for this one as well.
-- Runs where Celery's Redis backend keeps its chords, whose keys these are.
-- KEYS[1] the parts that have reported; KEYS[2] how many there are; KEYS[3] a correction of that
-- KEYS[4] which parts were counted (Celery 5.7); KEYS[5] the claim to run the body (Celery 5.7)
-- ARGV    "<task id>:<index>", then what the part has reported
-- Returns 1, or 0 when the chord is over or about to be
local size = redis.call('GET', KEYS[2])
if not size or redis.call('EXISTS', KEYS[5]) == 1 then return 0 end
if redis.call('ZCARD', KEYS[1]) >= size + (redis.call('GET', KEYS[3]) or 0) then return 0 end
for i = 2, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
redis.call('SREM', KEYS[4], ARGV[1])
return 1

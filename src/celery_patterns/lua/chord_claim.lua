-- Claim the end of a chord whose parts all have an outcome: one process at a time hands it on.
-- KEYS[1] the chord
-- ARGV    claim token, claim_ms
-- Returns {"claimed"}; {"busy", ms} while another process holds the claim;
--         {"ended"} when there is nothing to hand on
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended', 'claim', 'until')
if chord[2] or not chord[1] then return {'ended'} end
local now = math.floor(now_us() / 1000)
if chord[3] and chord[3] ~= ARGV[1] and tonumber(chord[4]) > now then return {'busy', chord[4] - now} end
redis.call('HSET', KEYS[1], 'claim', ARGV[1], 'until', string.format('%.0f', now + ARGV[2]))
return {'claimed'}

-- A part that ended badly is about to be run again: wait for it once more, or let its next report replace the outcome.
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    task id, "wait" or "replace"
-- Returns "waits": the part is outstanding again; "unreported": it is outstanding, its end is not reported yet;
--         "ending": the end is being handed on this moment; "replaces": the next report will replace the outcome;
--         "over": there is nothing that could be mended (any more)
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended', 'revoked_rest', 'ok', 'failed', 'revoked', 'lost')
local slot = redis.call('HGET', KEYS[2], ARGV[1])
if not chord[1] or not slot then return 'over' end
local index, before = string.match(slot, '^(%d+) ?(%l*)')
if before == 'ok' then return 'over' end
if before == '' or before == 'running' then return 'unreported' end
if not chord[2] and ARGV[2] == 'wait' and not chord[3] then
  local reported = 0
  for i = 4, 7 do reported = reported + (chord[i] or 0) end
  if reported >= tonumber(chord[1]) then return 'ending' end
  redis.call('HSET', KEYS[2], ARGV[1], index)
  redis.call('HINCRBY', KEYS[1], before, -1)
  return 'waits'
end
redis.call('HSET', KEYS[1], 'again:' .. ARGV[1], 1)
return 'replaces'

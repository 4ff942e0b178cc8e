-- Write down that a part has started, or that it is waiting again (fail_fast only).
-- KEYS[1] the chord, KEYS[2] its parts
-- ARGV    task id, "running" or "waiting", payload of a revoked part
-- Returns {"live", total, ok, failed, revoked, lost}; {"revoked"} when the part was given up and must not run;
--         {"late"} after the chord has ended; {"unknown"} when there is no such chord (any more), or no such part.
-- A part that waits again after the rest was revoked is revoked with it.
local chord = redis.call('HMGET', KEYS[1], 'total', 'ended', 'revoked_rest')
local slot = redis.call('HGET', KEYS[2], ARGV[1])
local index, before = string.match(slot or '', '^(%d+) ?(%l*)')
if chord[3] and before == 'revoked' and ARGV[2] == 'running'
  and redis.call('HEXISTS', KEYS[1], 'again:' .. ARGV[1]) == 0 then return {'revoked'} end
if chord[2] then return {'late'} end
if not chord[1] or not slot then return {'unknown'} end
if before == '' and ARGV[2] == 'running' then
  redis.call('HSET', KEYS[2], ARGV[1], index .. ' running')
elseif before == 'running' and ARGV[2] == 'waiting' then
  if chord[3] then
    redis.call('HSET', KEYS[2], ARGV[1], index .. ' revoked ' .. ARGV[3])
    redis.call('HINCRBY', KEYS[1], 'revoked', 1)
  else
    redis.call('HSET', KEYS[2], ARGV[1], index)
  end
end
return {'live', unpack(redis.call('HMGET', KEYS[1], 'total', 'ok', 'failed', 'revoked', 'lost'))}

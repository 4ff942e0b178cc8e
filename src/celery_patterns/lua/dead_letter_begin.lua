-- Ask whether a delivery may run, if it is a replay or may be a copy of a task that has died.
-- KEYS[1] the root of all keys
-- ARGV    id, replay (its number, 0 for the first life of the task)
-- Returns "run"; {"buried", error} when this life ended in the death that is stored;
--         "stale" when a later life has begun, or this one has ended well
local id, replay = ARGV[1], ARGV[2]
local key = entry_key(id)
local e = redis.call('HMGET', key, 'state', 'replays', 'unsure', 'error')
if not e[1] then return 'run' end
if e[2] ~= replay then return 'stale' end
if e[1] == 'replaying' then
  under_way(id)
  return 'run'
end
if e[1] == 'open' and e[3] == replay then
  redis.call('HDEL', key, 'unsure')
  under_way(id)
  move(id, 'replaying')
  note(id, 'published', 'replay ' .. replay .. ' was under way after all')
  return 'run'
end
if e[1] == 'resolved' then return 'stale' end
return {'buried', e[4] or ''}

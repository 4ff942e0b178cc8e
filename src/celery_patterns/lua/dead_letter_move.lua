-- What a person decides about entries.
-- KEYS[1] the root of all keys
-- ARGV    from (states, separated by blanks), to (a state, or "gone"), words, ids...
-- Returns the ids that were moved
local moved = {}
for i = 4, #ARGV do
  local state = redis.call('HGET', entry_key(ARGV[i]), 'state')
  if state and string.find(ARGV[1], state, 1, true) then
    if ARGV[2] == 'gone' then
      delete(ARGV[i])
    else
      move(ARGV[i], ARGV[2])
      note(ARGV[i], ARGV[2], ARGV[3])
      redis.call('HSET', entry_key(ARGV[i]), 'failed_replays', 0)
      redis.call('HDEL', entry_key(ARGV[i]), 'unsure')
    end
    moved[#moved + 1] = ARGV[i]
  end
end
return moved

-- Set what is set at run time for one name: its rate, its burst, until when it is closed.
-- KEYS[1] a line for each name, "\n<name>:n per burst closed", each 0 unless set; n and per of the empty name
--         are the factor of all rates
-- ARGV    name, n, per_us, burst, closed_us from now; each "" to leave it as it is, 0 to take it back
-- Returns "ok"
-- Every call under a limit reads all of it: so what says nothing any more is left out, and no key is left.
local now = now_us()
local mine, others, lasts, open_at = {'0', '0', '0', '0'}, '', false, 0

local function keep(name, n, per, burst, closed)
  lasts = lasts or n ~= '0' or burst ~= '0'
  if n == '0' and burst == '0' and closed - now <= 0 then return end
  open_at = math.max(open_at, closed)
  others = others .. '\n' .. name .. ':' .. table.concat({n, per, burst, closed}, ' ')
end

for name, said in string.gmatch(redis.call('GET', KEYS[1]) or '', '\n([^\n:]*):([^\n]*)') do
  local all = {string.match(said, '^(%d+) (%d+) (%d+) (%d+)$')}
  if name == ARGV[1] then mine = all else keep(name, unpack(all)) end
end
if ARGV[2] ~= '' then mine[1], mine[2] = ARGV[2], ARGV[3] end
if ARGV[4] ~= '' then mine[3] = ARGV[4] end
if ARGV[5] == '0' then
  mine[4] = '0'
elseif ARGV[5] ~= '' then
  mine[4] = string.format('%.0f', math.max(mine[4], now + ARGV[5]))
end
keep(ARGV[1], unpack(mine))
if others == '' then
  redis.call('DEL', KEYS[1])
elseif lasts then
  redis.call('SET', KEYS[1], others)
else
  redis.call('PSETEX', KEYS[1], math.ceil((open_at - now) / 1000) + 1000, others)
end
return 'ok'

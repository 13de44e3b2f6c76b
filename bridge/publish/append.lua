-- Compare, then append: one call carries many entries of one stream and decides in Redis, atomically,
-- which of them are new. Sending anything again is harmless. Runs on Redis 6.2 and later and on Valkey.
--
-- KEYS[1]  the stream
-- ARGV     max_entries ('' = no limit), max_age_ms ('' = no limit),
--          number of shapes, then for each shape: number of fields, their names...
--          then for each entry: op, expected, position, ms, number of its shape, its values...
--   op 'A' numbered message: expected = its predecessor's position
--      'S' depth snapshot: directly at its position, or not at all
--      'G' gap, start, renumbering: expected = the last ID that was reasoned on
--      'C' unnumbered: expected = the last ID on the first of a batch, '' on the others;
--          position = the wanted sequence
-- Returns {status, entries settled, last ID, one sign for each settled entry}
--   '+' appended  '=' position is not newer  '!' the same, but its time is newer than anything here
--       (of a snapshot: another one stands there or behind)
--   '~' the stream has moved on: not placed
local k = KEYS[1]
local M, S, last, added = 0, 0, '0-0', false
if redis.call('EXISTS', k) == 1 then
  local x = redis.call('XINFO', 'STREAM', k) -- last-generated-id survives trimming and XDEL
  for i = 1, #x, 2 do
    if x[i] == 'last-generated-id' then last = x[i + 1] end
  end
  local a, b = string.match(last, '(%d+)-(%d+)')
  M, S = tonumber(a), tonumber(b)
  -- Lua's numbers are doubles: beyond 2^53 neighbours become equal. We never write such an ID.
  if M >= 2 ^ 53 or S >= 2 ^ 53 then return { 'foreign', 0, last, '' } end
end

-- A shape is XADD's arguments with room for ID and values: names come once a call, not once an entry.
local shapes, i = {}, 4
for number = 1, tonumber(ARGV[3]) do
  local shape = { k, fields = tonumber(ARGV[i]) }
  for j = 1, shape.fields do shape[2 * j + 1] = ARGV[i + j] end
  shapes[number] = shape
  i = i + shape.fields + 1
end

local function add(ms, seq, shape, before)
  if ms < M then ms = M end
  if ms == M and seq <= S then ms = M + 1 end
  last = string.format('%.0f-%.0f', ms, seq)
  shape[2] = last
  for j = 1, shape.fields do shape[2 * j + 2] = ARGV[before + j] end
  redis.call('XADD', unpack(shape, 1, 2 * shape.fields + 2))
  M, S, added = ms, seq, true
end

-- Rare: another bridge was first with the same snapshot, or has placed a later one.
local function has_snapshot(pos)
  for _, entry in ipairs(redis.call('XREVRANGE', k, '+', '-', 'COUNT', 500)) do
    if entry[2][2] == 'depth_snapshot' then
      return math.floor(tonumber(string.match(entry[1], '-(%d+)')) / 10) >= pos
    end
    if entry[2][2] == 'gap' then return false end
  end
  return false
end

local function trim()
  if not added then return end
  if ARGV[1] ~= '' then redis.call('XTRIM', k, 'MAXLEN', '~', ARGV[1]) end
  if ARGV[2] ~= '' and M > tonumber(ARGV[2]) then
    redis.call('XTRIM', k, 'MINID', '~', string.format('%.0f', M - tonumber(ARGV[2])))
  end
end

local n, res, status = 0, {}, 'ok'
while i <= #ARGV do
  local op, exp, pos, ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local shape, before = shapes[tonumber(ARGV[i + 4])], i + 4
  local r, at = '+', math.floor(S / 10)
  if op == 'A' then
    if last == '0-0' then status = 'empty' break end
    if pos <= at then
      r = (ms > M) and '!' or '='
    elseif tonumber(exp) > at then
      status = 'hole' break
    else
      add(ms, pos * 10, shape, before)
    end
  elseif op == 'S' then
    if last ~= '0-0' and at == pos and S % 10 < 2 then
      add(ms, pos * 10 + 2, shape, before)
    else
      r = has_snapshot(pos) and '=' or '~'
    end
  elseif op == 'G' then
    if exp == last then add(ms, pos * 10 + 1, shape, before) else r = '~' end
  elseif op == 'C' then
    if exp ~= '' and exp ~= last then status = 'moved' break end
    if ms < M or (ms == M and pos <= S) then
      ms = M
      pos = S + 1
    end
    add(ms, pos, shape, before)
  end
  res[#res + 1] = r
  n = n + 1
  i = before + shape.fields + 1
end
trim()
return { status, n, last, table.concat(res) }

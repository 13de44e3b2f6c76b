-- Compare and append: one call carries entries of one stream or of several, and decides in Redis,
-- atomically, which of them are new. Sending anything again is harmless. Runs on Redis 6.2 and later
-- and on Valkey.
--
-- KEYS     the streams
-- ARGV     number of shapes, then for each shape: number of fields, their names...
--          then for each stream: max_entries ('' = no limit), max_age_ms ('' = no limit), how many
--          arguments its entries are, and for each entry: op, expected, position, ms, then either
--          the number of its shape and its values, or 0, how many arguments follow, and names and
--          values in turn: cheaper if a stream has only one entry
--   op 'A' sequenced message: expected = its predecessor's position
--      'S' depth snapshot: directly behind the delta with its position, or not at all
--      'G' gap, start, renumbering: expected = the last ID that the stream must have
--      'C' identified by content: expected = the last ID that the stream must have on the first
--          entry of a batch, '' on further ones; position = the sequence of its ID, if free
-- Returns for each stream {status, entries settled, last ID, one sign for each settled entry}, or the
-- error with which Redis refuses this stream. If no entries are given, the ID is that of the newest
-- entry: the last ID is that or a higher one
--   '+' appended  '=' position is not newer  '!' the same, but its time is newer than any in the stream
--       ('=' of a snapshot: another one is at its position or behind)
--   '~' the stream is past its place: not written
-- status 'mixed': another program's entry is the newest of a sequenced stream: its position means
-- nothing

-- Nearly every call has one entry of one stream, so the setup of each call is kept small.

-- A shape is XADD's arguments with room for the values: names are sent once a call, not once an entry.
-- Before the fields are the key, MAXLEN ~ and its number if there is one, and the ID.
local shapes, first = {}, 2
for number = 1, tonumber(ARGV[1]) do
  local shape = { false, 'MAXLEN', '~', false, false, fields = tonumber(ARGV[first]) }
  for j = 1, shape.fields do
    shape[2 * j + 4], shape[2 * j + 5] = ARGV[first + j], false
  end
  shapes[number] = shape
  first = first + shape.fields + 1
end

-- The current stream.
local k, max_entries
local last, M, S -- its last ID, and that one's time and sequence
local newest -- its newest entry (not deleted)
local sure -- whether `last` is the last-generated-id, or only the newest entry's ID
local mixed -- whether the newest entry is another program's; nil: not checked yet
local added -- whether this call has appended to it

local function set_end(id, entry)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  last, M, S, newest, mixed = id, tonumber(ms), tonumber(seq), entry, nil
end

-- The exact last ID, at three times the cost: last-generated-id survives trimming and XDEL.
local function read_end()
  local id, entry = '0-0', false
  if redis.call('EXISTS', k) == 1 then
    local x = redis.call('XINFO', 'STREAM', k)
    for i = 1, #x, 2 do
      if x[i] == 'last-generated-id' then id = x[i + 1] end
      if x[i] == 'last-entry' then entry = x[i + 1] end
    end
  end
  set_end(id, entry)
  sure = true
end

local function position_of(entry) return math.floor(string.match(entry[1], '-(%d+)') / 10) end

-- A plain XADD of another program makes an ID that may look like one of ours, up to a later position:
-- `XADD *` counts the sequence up while the last time is ahead of Redis' clock. So the entry itself
-- is checked. If it was deleted, only a sequence that we never write shows another program.
local function is_ours(entry)
  if entry[2][1] ~= 'type' then return false end
  local slot, kind = string.match(entry[1], '-(%d+)') % 10, entry[2][2]
  if slot == 0 then return kind == 'trade' or kind == 'depth' end
  return (slot == 1 and kind == 'gap') or (slot == 2 and kind == 'depth_snapshot')
end
local function is_mixed()
  if mixed == nil then
    if newest and newest[1] == last then
      mixed = not is_ours(newest)
    else
      mixed = last ~= '0-0' and (S == 0 or S % 10 > 2)
    end
  end
  return mixed
end

-- Places an entry, and returns its sign. nil and a status: the stream's call ends before it. nil
-- alone: Redis has a higher last ID than the newest entry's.
local function place(op, exp, pos, ms, shape, before)
  local at, seq = math.floor(S / 10), pos * 10
  if op == 'A' then
    if last == '0-0' then return nil, 'empty' end
    if is_mixed() then -- rare: the position of our own newest entry, before the other program's
      at = -1
      for _, entry in ipairs(redis.call('XREVRANGE', k, '+', '-', 'COUNT', 1000)) do
        if is_ours(entry) then at = position_of(entry) break end
      end
    end
    if pos <= at then return ms > M and '!' or '=' end
    if mixed then return nil, 'mixed' end
    if tonumber(exp) > at then return nil, 'gap' end
  elseif op == 'C' then
    if exp ~= '' and exp ~= last then return nil, 'moved' end
    if ms < M or (ms == M and pos <= S) then -- identity is the content: any higher ID will do
      ms, pos = M, S + 1
    end
    seq = pos
  elseif op == 'G' then
    if exp ~= last then return '~' end
    seq = seq + 1
  else
    if last == '0-0' or at ~= pos or S % 10 > 1 or is_mixed() then
      -- rare: another bridge wrote the same snapshot first, or a later one
      for _, entry in ipairs(redis.call('XREVRANGE', k, '+', '-', 'COUNT', 500)) do
        if entry[2][2] == 'depth_snapshot' then return position_of(entry) >= pos and '=' or '~' end
        if entry[2][2] == 'gap' then break end
      end
      return '~'
    end
    seq = seq + 2
  end

  -- IDs must rise: the time is raised, since the sequence is the identity.
  if ms < M then ms = M end
  if ms == M and seq <= S then ms = M + 1 end
  local id, call, reply = string.format('%.0f-%.0f', ms, seq), sure and redis.call or redis.pcall
  local is_limit = max_entries ~= '' and not added -- once in a call is enough
  if shape then
    local from = is_limit and 1 or 4
    shape[4] = max_entries
    shape[from], shape[5] = k, id
    for j = 1, shape.fields do shape[2 * j + 5] = ARGV[before + j] end
    reply = call('XADD', unpack(shape, from, 2 * shape.fields + 5))
  else
    local from, to = before + 2, before + 1 + ARGV[before + 1]
    if is_limit then
      reply = call('XADD', k, 'MAXLEN', '~', max_entries, id, unpack(ARGV, from, to))
    else
      reply = call('XADD', k, id, unpack(ARGV, from, to))
    end
  end
  if type(reply) == 'table' then return nil end -- an error; if `sure`, it was raised
  last, M, S, sure, mixed, added = id, ms, seq, true, false, true
  return '+'
end

-- Appends the entries in the arguments from i to stop.
--
-- The newest entry's ID is the last ID, unless entries behind it were deleted. Redis refuses an ID
-- that is not above the last: so an entry appended by the newest entry's ID is correct, and before any
-- other answer the exact last ID is read. A gap and a snapshot are rare and depend on what is before
-- them: the exact last ID is read, too.
local function append(i, stop, max_age_ms)
  local entry = redis.call('XREVRANGE', k, '+', '-', 'COUNT', 1)[1]
  sure, added = false, false
  if entry then set_end(entry[1], entry) else read_end() end
  local before, n, signs, status = M, 0, '', 'ok'
  while i <= stop do
    local op, exp, pos, ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
    local shape = shapes[tonumber(ARGV[i + 4])]
    local sign, why
    if not sure and (op == 'G' or op == 'S') then read_end() end
    -- Lua's numbers are floating-point: beyond 2^53 neighbours are equal. We never write such an ID.
    if M < 2 ^ 53 and S < 2 ^ 53 then sign, why = place(op, exp, pos, ms, shape, i + 4) end
    if not sure then -- nothing was appended yet
      read_end()
      if M < 2 ^ 53 and S < 2 ^ 53 then sign, why = place(op, exp, pos, ms, shape, i + 4) end
    end
    if not sign then status = why or 'foreign' break end
    n, signs = n + 1, signs .. sign
    i = i + 5 + (shape and shape.fields or 1 + ARGV[i + 5])
  end
  -- once a second of the stream's own time
  if added and max_age_ms ~= '' and math.floor(M / 1000) > math.floor(before / 1000) then
    local oldest = M - tonumber(max_age_ms)
    if oldest > 0 then redis.call('XTRIM', k, 'MINID', '~', string.format('%.0f', oldest)) end
  end
  return { status, n, last, signs }
end

local answers = {}
for number = 1, #KEYS do
  k, max_entries = KEYS[number], ARGV[first]
  local stop = first + 2 + ARGV[first + 2]
  local done, answer = pcall(append, first + 3, stop, ARGV[first + 1])
  if not done and type(answer) ~= 'table' then answer = { err = tostring(answer) } end
  answers[number] = answer
  first = stop + 1
end
return answers

-- Shared mode: settle entries. Their results are applied only if this call acknowledges them: a second
-- call, by a worker that was suspended or has lost the reply, changes nothing.
-- KEYS: stream, settled, dead, then the keys of the results
-- ARGV: group, then for each unit: kind, number of IDs, IDs..., number of writes, writes...
--   kind 'ack'   entries that were handled, or became dead letters
--        'gone'  entries that were trimmed before they were handled
--        'again' a dead letter that was sent back and has been handled
-- Returns {settled up to (an ID, or false), missed now, then for each unit 1, 0 or the reason of a refusal}
--include writes
--include stream
local stream, group = KEYS[1], ARGV[1]
local bad = hash_error(KEYS[2]) -- before the first effect: it would end the script half-way
if bad then return bad end

local function is_pending(id)
  local p = redis.pcall('XPENDING', stream, group, id, id, 1)
  return not p.err and #p == 1
end

local function take(kind, from, to, writes)
  if kind == 'again' then return redis.call('XDEL', KEYS[3], ARGV[from]) end
  if writes > 0 and to > from then -- a list with results: all or nothing
    for i = from, to do
      if not is_pending(ARGV[i]) then return 0 end
    end
  end
  local taken = 0
  for i = from, to, 1000 do
    taken = taken + redis.call('XACK', stream, group, unpack(ARGV, i, math.min(to, i + 999)))
  end
  return taken
end

local answers, acked, gone = { false, 0 }, 0, 0
local i = 2
while i <= #ARGV do
  local kind, from = ARGV[i], i + 2
  local to = i + 1 + tonumber(ARGV[i + 1])
  local writes = tonumber(ARGV[to + 1])
  local why, after = refusal(to + 2, writes)
  if why then
    answers[#answers + 1] = why
  else
    local taken = take(kind, from, to, writes)
    if taken > 0 then apply(to + 2, writes) end
    if kind ~= 'again' then acked = acked + taken end
    if kind == 'gone' then gone = gone + taken end
    answers[#answers + 1] = taken > 0 and 1 or 0
  end
  i = after
end

-- The mark up to which all entries are settled: a deleted group is created again from there.
local p = redis.pcall('XPENDING', stream, group)
local s = about(stream)
if p.err or not s then return answers end
local pending, delivered = p[1], nil
for _, g in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local one = {}
  for j = 1, #g, 2 do one[g[j]] = g[j + 1] end
  if one.name == group then delivered = one['last-delivered-id'] end
end
local mark = delivered
if pending > 0 then
  local ms, seq = string.match(p[2], '^(%d+)-(%d+)$')
  if tonumber(seq) == 0 then
    mark = string.format('%.0f-18446744073709551615', math.max(0, tonumber(ms) - 1))
    if tonumber(ms) == 0 then mark = '0-0' end
  else
    -- Lua numbers are not exact above 2^53: a lower mark repeats some entries, and skips none
    mark = ms .. '-' .. (tonumber(seq) < 2 ^ 53 and string.format('%.0f', tonumber(seq) - 1) or '0')
  end
end
local counts = redis.call('HMGET', KEYS[2], 'base', 'acked', 'skipped', 'id', 'counted')
redis.call('HSET', KEYS[2], 'id', mark)
answers[1] = mark

-- Entries added up to `delivered` that were never delivered had been trimmed or deleted. Counting them
-- takes as long as reading two hundred entries: done at once if the last settled entry is trimmed, else
-- once a second.
local second = redis.call('TIME')[1]
local is_due = delivered == s.newest or counts[5] ~= second
  or not string.match(counts[4] or '0-0', '^%d+-%d+$')
  or counts[4] and s.first and is_less(counts[4], s.first)
-- If one of the counts is no number, all start again, as without a base.
local before, skipped = count_of(counts[2] or '0'), count_of(counts[3] or '0')
local base = before and skipped and count_of(counts[1])
local missed = gone
if base then
  local done = before + acked
  local index = is_due and index_of(stream, s, delivered, 100)
  local now = index and index - base - done - pending or 0
  if now > skipped then
    missed = missed + now - skipped
    skipped = now
  end
  redis.call('HSET', KEYS[2], 'acked', string.format('%.0f', done),
    'skipped', string.format('%.0f', skipped), 'counted', second)
elseif delivered == s.newest and s.added then
  redis.call('HSET', KEYS[2], 'base', string.format('%.0f', s.added - pending), 'acked', '0', 'skipped', '0')
end
add_to(KEYS[2], 'missed', missed)
answers[2] = missed
return answers

-- The progress of a stream's groups. Redis' own `lag` is null or wrong after trims and deletes: unread
-- entries are counted if they are few, and computed from counters otherwise.
-- KEYS: stream, then for each group known to the kit: position, settled, lease, dead
-- ARGV: maximum number to count, then the names of these groups
-- Returns nil if there is no stream, else {added (or ''), newest ID, now in ms, groups...}, each
-- {name, position, unread, precision (exact, counted, at_most), first unread ID, pending, oldest
--  pending ID, owner, dead letters, missed, blocked at, mode as far as the group's keys show it}
--include stream
local key, most = KEYS[1], tonumber(ARGV[1])
local s = about(key)
if not s then return nil end

local known = {}
for i = 2, #ARGV do
  local at = 2 + (i - 2) * 4
  known[ARGV[i]] = { position = KEYS[at], settled = KEYS[at + 1], lease = KEYS[at + 2], dead = KEYS[at + 3] }
end

-- The fields of a hash; empty for a key of another type, written by another program.
local function fields_of(...)
  local r = redis.pcall('HMGET', ...)
  if not r.err then return r end
  if string.find(tostring(r.err), 'WRONGTYPE', 1, true) then return {} end
  return redis.call('HMGET', ...) -- raises: a permission is missing
end

local function unread(position, index, lag)
  if not is_less(position, s.newest) then return 0, 'exact', '' end
  local after = redis.call('XRANGE', key, '(' .. position, '+', 'COUNT', 1)
  if #after == 0 then return 0, 'exact', '' end
  local first = after[1][1]
  if first == s.first then return s.length, 'exact', first end
  local some = #redis.call('XRANGE', key, '(' .. position, '+', 'COUNT', most + 1)
  if some <= most then return some, 'exact', first end
  if index and s.added then return math.max(some, math.min(s.length, s.added - index)), 'counted', first end
  if lag then return math.max(some, math.min(s.length, lag)), 'counted', first end
  return s.length, 'at_most', first
end

local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local found = { s.added and string.format('%.0f', s.added) or '', s.newest, string.format('%.0f', now) }
for _, g in ipairs(redis.call('XINFO', 'GROUPS', key)) do
  local one = {}
  for j = 1, #g, 2 do one[g[j]] = g[j + 1] end
  local position, index, owner, dead, missed, blocked = one['last-delivered-id'], nil, '', 0, 0, ''
  local mode = ''
  local mine = known[one.name]
  if mine then
    local p = fields_of(mine.position, 'id', 'read', 'missed', 'trying', 'tries', 'token')
    local c = fields_of(mine.settled, 'base', 'acked', 'skipped', 'missed')
    if p[1] then
      mode = p[6] and 'ordered' or 'joined' -- joined streams have a common token in another key
      position, index, missed = p[1], count_of(p[2]), count_of(p[3]) or 0
      if p[4] and (count_of(p[5]) or 0) > 1 then blocked = p[4] end
    elseif c[1] then
      mode = 'shared'
      local base, acked, skipped = count_of(c[1]), count_of(c[2]) or 0, count_of(c[3]) or 0
      if base then index = base + acked + skipped + one.pending end
    end
    missed = missed + (count_of(c[4]) or 0)
    owner = redis.pcall('GET', mine.lease) or ''
    if type(owner) == 'table' then owner = '' end
    dead = redis.pcall('XLEN', mine.dead)
    if type(dead) == 'table' then dead = 0 end -- a key of another type
  end
  local count, sure, first = unread(position, index, one.lag)
  local oldest = redis.call('XPENDING', key, one.name)[2] or ''
  found[#found + 1] = {
    one.name, position, count, sure, first, one.pending, oldest, owner, dead, missed, blocked,
    mode,
  }
end
return found

-- Data about a stream, for the scripts that count missed entries.
-- IDs are compared as numbers: as text, '9-0' would come after '10-0'.
local function is_less(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  if am ~= bm then return #am < #bm or (#am == #bm and am < bm) end
  return #as < #bs or (#as == #bs and as < bs)
end

local BEGIN_ELSEWHERE = 'begin at another place (--from)' -- for a new group

-- The error for a position more than a day ahead of the server's clock and above the stream's last ID,
-- written by another program, or given by mistake: a reader would silently wait there. nil for any other
-- position. `mend` is the instruction how to mend it.
local function future_error(s, id, mend)
  local ms = tonumber(string.match(id, '^(%d+)-%d+$'))
  if not ms or ms <= redis.call('TIME')[1] * 1000 + 86400000 then return nil end
  if s and not is_less(s.newest, id) then return nil end
  return redis.error_reply('ERR nothing is read behind ' .. id .. ', a time to come: ' .. mend)
end

-- The error for a key of another type than hash, written by another program; nil for a hash or no key.
local function hash_error(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' or kind == 'hash' then return nil end
  return redis.error_reply('WRONGTYPE the key ' .. key .. ' is a ' .. kind .. ', not a hash')
end

-- A counter as a number; nil if another program has written anything else, which must not abort a script
-- half-way.
local function count_of(text)
  return text and string.match(text, '^%d+$') and #text < 16 and tonumber(text) or nil
end

local function add_to(key, field, number)
  if number > 0 then redis.pcall('HINCRBY', key, field, string.format('%.0f', number)) end
end

-- XINFO STREAM as a table; nil if there is no stream. `added` is nil before Redis 7.0, `first` in an
-- empty stream.
local function about(key)
  local x = redis.pcall('XINFO', 'STREAM', key)
  if x.err then
    local why = tostring(x.err) -- the in-memory server of tests returns an object of its own here
    if string.find(why, 'no such key', 1, true) or string.find(why, 'WRONGTYPE', 1, true) then
      return nil
    end
    redis.call('XINFO', 'STREAM', key) -- raises: a permission is missing, whatever the stream is
  end
  local s = {}
  for i = 1, #x, 2 do
    if x[i] == 'length' then s.length = x[i + 1] end
    if x[i] == 'last-generated-id' then s.newest = x[i + 1] end
    if x[i] == 'entries-added' then s.added = x[i + 1] end
    if x[i] == 'first-entry' and x[i + 1] then s.first = x[i + 1][1] end
  end
  return s
end

-- The number of entries ever added up to `id`, included; nil if it cannot be determined, or only by
-- counting more than `most` entries.
local function index_of(key, s, id, most)
  if not s.added or is_less(s.newest, id) then return nil end
  if id == s.newest then return s.added end
  local gone = s.added - s.length
  if not s.first or is_less(id, s.first) then return gone end
  local before = #redis.call('XRANGE', key, '-', id, 'COUNT', most + 1)
  if before <= most then return gone + before end
  local after = #redis.call('XRANGE', key, '(' .. id, '+', 'COUNT', most + 1)
  if after <= most then return s.added - after end
  return nil
end

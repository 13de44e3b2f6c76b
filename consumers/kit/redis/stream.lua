-- What a stream says of itself, for the scripts that count what a reader has missed.
-- IDs compare by number: as text, '9-0' would come after '10-0'.
local function is_less(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  if am ~= bm then return #am < #bm or (#am == #bm and am < bm) end
  return #as < #bs or (#as == #bs and as < bs)
end

-- A place more than a day ahead of the server's clock and of all that the stream has: another program
-- has written it. A reader would wait there, without a word. nil where it is none; `mend` says how to
-- set it back.
local function future_error(s, id, mend)
  local ms = tonumber(string.match(id, '^(%d+)-%d+$'))
  if not ms or ms <= redis.call('TIME')[1] * 1000 + 86400000 then return nil end
  if s and not is_less(s.newest, id) then return nil end
  return redis.error_reply('ERR nothing is read behind ' .. id .. ', a time to come: ' .. mend)
end

-- What is counted beside a stream: another program may have written anything there, which must not
-- end a script half-way.
local function count_of(text)
  return text and string.match(text, '^%d+$') and #text < 16 and tonumber(text) or nil
end

local function add_to(key, field, number)
  if number > 0 then redis.pcall('HINCRBY', key, field, string.format('%.0f', number)) end
end

-- nil where there is no stream. `added` is nil before Redis 7.0, `first` where nothing is left.
local function about(key)
  local x = redis.pcall('XINFO', 'STREAM', key)
  if x.err then
    local why = tostring(x.err) -- a test's server in memory has an object of its own there
    if string.find(why, 'no such key', 1, true) or string.find(why, 'WRONGTYPE', 1, true) then
      return nil
    end
    redis.call('XINFO', 'STREAM', key) -- raises: a right is missing, which is no news of the stream
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

-- How many entries were ever added up to `id`, itself included; nil where that cannot be known, or
-- only by counting more than `most` entries.
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

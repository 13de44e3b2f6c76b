-- Where a reader of a stream stands, for the scripts of ordered and joined mode: the hash `position`
-- beside it. Needs `stream.lua`.
-- A key that is no stream, though there is something; nil for one that may become a stream.
local function kind_error(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' or kind == 'stream' then return nil end
  return redis.error_reply('WRONGTYPE the key is a ' .. kind .. ', not a stream')
end

-- The position there is, or a new one at `start` ('0-0', '$' or an ID). `s` is `about` the stream.
local function begin_at(stream, position, s, start)
  local at = redis.call('HGET', position, 'id')
  if at then return at end
  at = start ~= '$' and start or s and s.newest or '0-0'
  redis.call('HSET', position, 'id', at)
  -- how many entries of the stream lie before the position, where that can be known
  local read = s and index_of(stream, s, at, 10000)
  if read then redis.call('HSET', position, 'read', string.format('%.0f', read)) end
  return at
end

local function position_error(s, position, at)
  return future_error(s, at, 'set the field id of ' .. position .. ' back')
end

-- The position has moved from `was` to `at`, over so many entries; `read` is how many lay up to `was`.
-- Returns how many more there were, and XINFO GROUPS shows where we are.
local function moved(stream, position, group, was, read, at, handled)
  local s = about(stream)
  local missed = 0
  if read then read = read + handled end
  -- What was added up to here and never read, was trimmed or deleted before. Counting up to the
  -- position costs nothing where it matters: just behind a trim, few entries lie before it.
  local index = s and index_of(stream, s, at, s.first and is_less(was, s.first) and 1000 or 0)
  if index then
    if read and index > read then
      missed = index - read
      add_to(position, 'missed', missed)
    end
    read = index
  end
  if read then redis.call('HSET', position, 'read', string.format('%.0f', read)) end
  if not s then return missed end

  -- ENTRIESREAD came with the same version as entries-added (7.0).
  local there = { stream, group, at }
  if s.added and read and read <= s.added then
    there[4], there[5] = 'ENTRIESREAD', string.format('%.0f', read)
  end
  local r = redis.pcall('XGROUP', 'SETID', unpack(there))
  if type(r) == 'table' and r.err and string.find(r.err, 'NOGROUP', 1, true) then
    redis.pcall('XGROUP', 'CREATE', unpack(there))
  end
  return missed
end

-- The position of a reader of a stream, in the hash `position`, for the scripts of ordered and joined
-- mode. Needs `stream.lua`.
-- The error for a key of another type than stream; nil for a stream or a missing key.
local function kind_error(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' or kind == 'stream' then return nil end
  return redis.error_reply('WRONGTYPE the key is a ' .. kind .. ', not a stream')
end

-- The saved position, or a new one at `start` ('0-0', '$' or an ID), and the error for a position in the
-- future: a new one is not saved then. `s` is `about` the stream.
local function begin_at(stream, position, s, start)
  local at = redis.call('HGET', position, 'id')
  if at then return at, future_error(s, at, 'set the field id of ' .. position .. ' back') end
  at = start ~= '$' and start or s and s.newest or '0-0'
  local bad = start ~= '$' and future_error(s, at, BEGIN_ELSEWHERE)
  if bad then return at, bad end
  redis.call('HSET', position, 'id', at)
  -- the number of entries of the stream up to the position, if it can be determined
  local read = s and index_of(stream, s, at, 10000)
  if read then redis.call('HSET', position, 'read', string.format('%.0f', read)) end
  return at
end

-- The position has moved from `was` to `at`, over `handled` entries; `read` is the number of entries up
-- to `was`. Returns the number of missed entries. Effect: updates the group that XINFO GROUPS shows.
local function moved(stream, position, group, was, read, at, handled)
  local s = about(stream)
  local missed = 0
  if read then read = read + handled end
  -- Entries added up to the position and never read had been trimmed or deleted. Counting them is cheap
  -- when it matters: just after a trim, few entries are before the position.
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

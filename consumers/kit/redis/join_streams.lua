-- Joined mode: the positions in all streams of a unit that this worker owns; creates missing ones.
-- KEYS: unit, then for each stream: its key, its position
-- ARGV: worker, token, group, then for each stream its start ('0-0', '$' or an ID)
-- Returns the positions, or nil if the worker no longer owns the unit
--include stream
--include position
local is = redis.call('HMGET', KEYS[1], 'owner', 'token')
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] then return nil end
for i = 2, #KEYS, 2 do
  local bad = kind_error(KEYS[i])
  if bad then return bad end
end
local found = {}
for i = 2, #KEYS, 2 do
  local s = about(KEYS[i])
  local at, bad = begin_at(KEYS[i], KEYS[i + 1], s, ARGV[3 + i / 2])
  if bad then return bad end
  redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[3], at) -- fails if it exists, or without a stream
  found[#found + 1] = at
end
return found

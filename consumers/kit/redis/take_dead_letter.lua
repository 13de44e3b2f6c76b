-- Take a dead letter that was sent back, to handle it: it becomes a dead letter again, with one more
-- attempt, until the handler succeeds. So a handler that kills its worker gets it once per retry.
-- KEYS: again, dead, position    ARGV: letter ID, error, worker, owner and token ('' in shared mode)
-- If a field is repeated (written by another program), the last one counts, as for all readers.
-- Returns its new ID and its fields, or nil if another worker has it (or the stream)
if ARGV[4] ~= '' then
  local is = redis.call('HMGET', KEYS[3], 'owner', 'token')
  if is[1] ~= ARGV[4] or is[2] ~= ARGV[5] then return nil end
end
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
local kind = redis.call('TYPE', KEYS[2]).ok
if not found or kind ~= 'stream' and kind ~= 'none' then return nil end
local last, fields = {}, {}
for i = 1, #found[2], 2 do last[found[2][i]] = i end
for i = 1, #found[2], 2 do
  local name, value = found[2][i], found[2][i + 1]
  if name == 'attempts' then value = string.format('%.0f', (tonumber(value) or 0) + 1) end
  if name == 'error' then value = ARGV[2] end
  if name == 'worker' then value = ARGV[3] end
  if last[name] == i then
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
end
local id = redis.pcall('XADD', KEYS[2], '*', unpack(fields))
if type(id) == 'table' then
  local is_full = string.find(id.err, 'exhausted', 1, true) -- its last ID is the largest possible one
  if is_full then return nil end
  return id
end
redis.call('XDEL', KEYS[1], ARGV[1])
return { id, fields }

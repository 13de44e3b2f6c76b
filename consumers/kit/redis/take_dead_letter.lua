-- A dead letter that was sent back is about to be handled: it is dead again, with one attempt more,
-- until that has gone well. So a handler that kills its worker gets it once for each time it is sent.
-- KEYS: again, dead, position    ARGV: letter ID, error, worker, owner and token ('' in shared mode)
-- Returns its new ID and its fields, or nil where another worker has it (or the stream)
if ARGV[4] ~= '' then
  local is = redis.call('HMGET', KEYS[3], 'owner', 'token')
  if is[1] ~= ARGV[4] or is[2] ~= ARGV[5] then return nil end
end
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
local kind = redis.call('TYPE', KEYS[2]).ok
if not found or kind ~= 'stream' and kind ~= 'none' then return nil end
local fields = found[2]
for i = 1, #fields, 2 do
  if fields[i] == 'attempts' then fields[i + 1] = string.format('%.0f', fields[i + 1] + 1) end
  if fields[i] == 'error' then fields[i + 1] = ARGV[2] end
  if fields[i] == 'worker' then fields[i + 1] = ARGV[3] end
end
local id = redis.call('XADD', KEYS[2], '*', unpack(fields))
redis.call('XDEL', KEYS[1], ARGV[1])
return { id, fields }

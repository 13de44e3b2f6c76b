-- Create a group in a stream, if it is missing: after the last entry that it has settled, if that is
-- known, else at the given start.
-- KEYS: stream, settled
-- ARGV: group, start ('0-0', '$' or an ID), mark up to which the worker knows all to be settled ('': none)
-- Returns 0 if the group exists, 1 if it was created, nil if there is no such stream
--include stream
local s = about(KEYS[1])
if not s then
  local kind = redis.call('TYPE', KEYS[1]).ok
  if kind == 'none' then return nil end
  return redis.error_reply('WRONGTYPE the key is a ' .. kind .. ', not a stream')
end
local bad = hash_error(KEYS[2])
if bad then return bad end
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  if info.name == ARGV[1] then
    return future_error(s, info['last-delivered-id'], 'set the group back (XGROUP SETID)') or 0
  end
end
local saved = redis.call('HGET', KEYS[2], 'id')
local at = saved or (ARGV[3] ~= '' and ARGV[3]) or ARGV[2]
bad = future_error(s, at, saved and 'set the field id of ' .. KEYS[2] .. ' back' or BEGIN_ELSEWHERE)
if bad then return bad end
local r = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], at)
if type(r) == 'table' and r.err then return r end
-- Entries are counted from this position on; without a base, from where the group has caught up.
if at == '$' then at = s.newest end
local base = index_of(KEYS[1], s, at, 10000)
redis.call('HDEL', KEYS[2], 'base', 'acked', 'skipped')
if base then redis.call('HSET', KEYS[2], 'base', string.format('%.0f', base)) end
redis.call('HSET', KEYS[2], 'id', at)
return 1

-- Become the owner of a stream, if nobody else is. Every owner gets a larger fencing token.
-- KEYS: lease, position, stream
-- ARGV: worker, lease_ms, group, where to begin ('0-0', '$' or an ID; used where no position is)
-- Returns nil, or {token, position}
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return nil end

local kind = redis.call('TYPE', KEYS[3]).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE the key is a ' .. kind .. ', not a stream')
end

local at = redis.call('HGET', KEYS[2], 'id')
if not at then
  local last, added, length = '0-0', nil, 0
  if redis.call('EXISTS', KEYS[3]) == 1 then
    local x = redis.call('XINFO', 'STREAM', KEYS[3])
    for i = 1, #x, 2 do
      if x[i] == 'last-generated-id' then last = x[i + 1] end
      if x[i] == 'entries-added' then added = x[i + 1] end
      if x[i] == 'length' then length = x[i + 1] end
    end
  end
  at = ARGV[4] == '$' and last or ARGV[4]
  redis.call('HSET', KEYS[2], 'id', at)
  -- how many entries of the stream lie before the position, where that can be known
  if added and at == last then
    redis.call('HSET', KEYS[2], 'read', added)
  elseif added and at == '0-0' then
    redis.call('HSET', KEYS[2], 'read', added - length)
  end
end
local token = redis.call('HINCRBY', KEYS[2], 'token', 1)
redis.call('HSET', KEYS[2], 'owner', ARGV[1])
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token, 'PX', ARGV[2])
redis.pcall('XGROUP', 'CREATE', KEYS[3], ARGV[3], at) -- there already, or no stream yet: both are fine
return { token, at }

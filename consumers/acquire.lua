-- Become the owner of a stream, if nobody else is. Every owner gets a larger fencing token; the first
-- one is the server's time, so that tokens go on growing where Redis was emptied.
-- KEYS: lease, position, stream
-- ARGV: worker, lease_ms, group, where to begin ('0-0', '$' or an ID; used where no position is)
-- Returns nil, or {token, position, 1 where the owner before did not let go by itself}
--include stream
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return nil end

local s = about(KEYS[3])
local kind = s and 'stream' or redis.call('TYPE', KEYS[3]).ok
if kind ~= 'stream' and kind ~= 'none' then
  return redis.error_reply('WRONGTYPE the key is a ' .. kind .. ', not a stream')
end

local at = redis.call('HGET', KEYS[2], 'id')
if not at then
  at = ARGV[4] ~= '$' and ARGV[4] or s and s.newest or '0-0'
  redis.call('HSET', KEYS[2], 'id', at)
  -- how many entries of the stream lie before the position, where that can be known
  local read = s and index_of(KEYS[3], s, at, 10000)
  if read then redis.call('HSET', KEYS[2], 'read', string.format('%.0f', read)) end
end
local before = redis.call('HGET', KEYS[2], 'owner')
if not redis.call('HGET', KEYS[2], 'token') then
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[2], 'token', t[1] .. string.format('%03d', math.floor(t[2] / 1000)))
end
local token = string.format('%.0f', redis.call('HINCRBY', KEYS[2], 'token', 1))
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'commits', 0)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token, 'PX', ARGV[2])
redis.pcall('XGROUP', 'CREATE', KEYS[3], ARGV[3], at) -- there already, or no stream yet: both are fine
return { token, at, before and 1 or 0 }

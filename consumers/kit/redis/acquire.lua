-- Acquire the lease of a stream, if no other worker has it. Every owner gets a larger fencing token; the
-- first one is the server's time, so that tokens keep growing after Redis was emptied.
-- KEYS: lease, position, stream (or the position again, if the lease is not of a single stream)
-- ARGV: worker, lease_ms, group, start ('0-0', '$' or an ID; used if there is no position)
-- Returns nil, or {token, position, 1 if the previous owner did not release its lease}
--include stream
--include position
local holder = redis.call('GET', KEYS[1])
if holder and string.sub(holder, 1, #ARGV[1] + 1) ~= ARGV[1] .. ' ' then return nil end

local is_stream = KEYS[3] ~= KEYS[2]
local s = is_stream and about(KEYS[3]) or nil
local bad = is_stream and not s and kind_error(KEYS[3])
if bad then return bad end

local at
at, bad = begin_at(KEYS[3], KEYS[2], s, ARGV[4])
if bad then return bad end
local before = redis.call('HGET', KEYS[2], 'owner')
if not redis.call('HGET', KEYS[2], 'token') then
  local t = redis.call('TIME')
  redis.call('HSET', KEYS[2], 'token', t[1] .. string.format('%03d', math.floor(t[2] / 1000)))
end
redis.call('HINCRBY', KEYS[2], 'token', 1)
local token = redis.call('HGET', KEYS[2], 'token') -- as text: Lua numbers are not exact above 2^53
redis.call('HSET', KEYS[2], 'owner', ARGV[1], 'commits', 0)
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. token, 'PX', ARGV[2])
if is_stream then
  redis.pcall('XGROUP', 'CREATE', KEYS[3], ARGV[3], at) -- may exist, or have no stream yet
end
return { token, at, before and 1 or 0 }

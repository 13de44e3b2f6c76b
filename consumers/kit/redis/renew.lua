-- Renew a lease. An expired lease is still valid while no other worker has taken a token since.
-- KEYS: lease, position    ARGV: worker, token, lease_ms
-- Returns 1, or 0 if the worker no longer owns the stream
local is = redis.call('HMGET', KEYS[2], 'owner', 'token')
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
return 1

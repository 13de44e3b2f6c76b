-- Release a lease: without an owner, a late renewal or commit is refused.
-- KEYS: lease, position    ARGV: worker, token
local is = redis.call('HMGET', KEYS[2], 'owner', 'token')
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], 'owner')
return redis.call('DEL', KEYS[1])

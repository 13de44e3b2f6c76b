-- Stop being the owner.    KEYS: lease, position    ARGV: worker, token
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ' ' .. ARGV[2] then return 0 end
redis.call('HDEL', KEYS[2], 'owner')
redis.call('HINCRBY', KEYS[2], 'token', 1) -- a renewal that comes late must not bring it back
return redis.call('DEL', KEYS[1])

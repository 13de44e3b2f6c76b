-- Stay the owner. A lease that ran out is still ours while nobody has taken a token since.
-- KEYS: lease, position    ARGV: worker, token, lease_ms
-- Returns 1, or 0 where the stream is not ours any more
local mine = ARGV[1] .. ' ' .. ARGV[2]
local holder = redis.call('GET', KEYS[1])
if holder ~= mine and (holder or redis.call('HGET', KEYS[2], 'token') ~= ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], mine, 'PX', ARGV[3])
return 1

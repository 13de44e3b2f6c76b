-- Record a worker's heartbeat by the server's clock, so that the workers' clocks do not matter.
-- KEYS[1] sorted set of workers    ARGV: name, time after which a silent worker counts as dead (ms)
-- Returns 1 if the worker was not in the set, the names of all live workers, and the time, ms.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
local is_new = redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - tonumber(ARGV[2])))
-- A time in the future is wrong: written before the clock was set back, or by another program.
redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + tonumber(ARGV[2])), '+inf')
return { is_new, redis.call('ZRANGE', KEYS[1], 0, -1), string.format('%.0f', now) }

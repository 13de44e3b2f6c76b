-- Mark the entry that is about to be handled alone, as it may fail or kill its worker, and count the attempt.
-- KEYS: lease, position    ARGV: worker, token, entry ID
-- Returns the number of attempts begun, this one included, or 0 if the worker no longer owns the stream
local is = redis.call('HMGET', KEYS[2], 'owner', 'token', 'trying', 'tries')
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] then return 0 end
-- `tries` may be no number, written by another program: then the count starts at zero.
local is_count = string.match(is[4] or '', '^%d+$') and #is[4] < 10
if is[3] ~= ARGV[3] or not is_count then redis.call('HSET', KEYS[2], 'trying', ARGV[3], 'tries', 0) end
return redis.call('HINCRBY', KEYS[2], 'tries', 1)

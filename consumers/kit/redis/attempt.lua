-- Say which entry is about to be handled, where handling it may fail or kill its worker, and count.
-- KEYS: lease, position    ARGV: worker, token, entry ID
-- Returns how often it was begun by now, or 0 where the stream is not ours any more
local is = redis.call('HMGET', KEYS[2], 'owner', 'token', 'trying', 'tries')
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] then return 0 end
-- Another program's `tries` is no number: counted from the beginning.
local is_count = string.match(is[4] or '', '^%d+$') and #is[4] < 10
if is[3] ~= ARGV[3] or not is_count then redis.call('HSET', KEYS[2], 'trying', ARGV[3], 'tries', 0) end
return redis.call('HINCRBY', KEYS[2], 'tries', 1)

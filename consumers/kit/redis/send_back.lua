-- A dead letter is to be handled again: it moves, so it is never in both places.
-- KEYS: dead, again    ARGV: letter ID    Returns 1, or 0 where it is not there (any more)
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not found then return 0 end
redis.call('XADD', KEYS[2], '*', unpack(found[2]))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1

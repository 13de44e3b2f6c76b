-- A dead letter is to be handled again: it moves, so it is never in both places.
-- KEYS: dead, again    ARGV: letter ID    Returns 1, or 0 where it is not there (any more), or is of
-- another program and has more fields than any letter
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not found or #found[2] > 7000 then return 0 end -- unpack() has room for some 8,000
redis.call('XADD', KEYS[2], '*', unpack(found[2]))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1

-- Send back a dead letter, to be handled again: it is moved, so it is never in both streams.
-- KEYS: dead, again    ARGV: letter ID    Returns 1, or 0 if it does not exist, or was written by
-- another program and has more fields than any dead letter
local found = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not found or #found[2] > 7000 then return 0 end -- unpack() fails above some 8,000 values
redis.call('XADD', KEYS[2], '*', unpack(found[2]))
redis.call('XDEL', KEYS[1], ARGV[1])
return 1

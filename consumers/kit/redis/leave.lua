-- Remove a consumer from a group, if it has nothing pending: XGROUP DELCONSUMER alone would drop its
-- pending entries.    KEYS[1] stream    ARGV: group, consumer    Returns 1 if it was removed
local summary = redis.pcall('XPENDING', KEYS[1], ARGV[1])
if summary.err then return 0 end
for _, one in ipairs(summary[4] or {}) do
  if one[1] == ARGV[2] then return 0 end
end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1

-- Commit a batch, all or nothing: results, state and position change together, and only for the owner
-- with the newest fencing token.
-- KEYS: lease, position, stream, then the keys of the results
-- ARGV: worker, token, lease_ms, group, expected position, new position, entries handled,
--       number of the owner's commits before this one, number of writes, writes...
-- Returns {'ok', entries missed}; {'lost'} if Redis was emptied; {'stale'} if the worker does not own
-- the stream, or the commit was applied before
--include writes
--include stream
--include position
local is = redis.call('HMGET', KEYS[2], 'owner', 'token', 'id', 'read', 'commits')
if not is[2] then return { 'lost' } end
-- The holder of the last token is the owner, not the lease: an expired lease is still valid while no
-- other worker has taken a token since. The name is compared, too: after Redis was emptied, tokens may
-- repeat. The count of commits prevents that a commit without a move is applied twice when it is sent
-- again.
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] or is[3] ~= ARGV[5] or is[5] ~= ARGV[8] then
  return { 'stale' }
end
local writes = tonumber(ARGV[9])
local why = refusal(10, writes)
if why then return redis.error_reply(why) end

redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
apply(10, writes)

local at, handled = ARGV[6], tonumber(ARGV[7])
redis.call('HSET', KEYS[2], 'id', at, 'commits', string.format('%.0f', ARGV[8] + 1))
if handled > 0 then redis.call('HDEL', KEYS[2], 'trying', 'tries') end
return { 'ok', moved(KEYS[3], KEYS[2], ARGV[4], is[3], count_of(is[4]), at, handled) }

-- Joined mode: commit a batch over several streams, all or nothing. As `commit.lua`, with the positions
-- of all streams in one step.
-- KEYS: lease, unit, then for each stream: its key, its position; then the keys of the results
-- ARGV: worker, token, lease_ms, group, number of the owner's commits before this one, number of
--       streams, for each its new position and entries handled; number of writes, writes...
-- Returns {'ok', entries missed}; {'lost'} if Redis was emptied; {'stale'} if the worker does not own
-- the unit, or the commit was applied before
--include writes
--include stream
--include position
local is = redis.call('HMGET', KEYS[2], 'owner', 'token', 'commits')
if not is[2] then return { 'lost' } end
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] or is[3] ~= ARGV[5] then return { 'stale' } end
local streams = tonumber(ARGV[6])
local from = 7 + 2 * streams
local writes = tonumber(ARGV[from])
local why = refusal(from + 1, writes)
if why then return redis.error_reply(why) end
local before = {} -- read before the first write: a key of another type must not end the script half-way
for i = 1, streams do before[i] = redis.call('HMGET', KEYS[2 + 2 * i], 'id', 'read') end

redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
redis.call('HSET', KEYS[2], 'commits', string.format('%.0f', ARGV[5] + 1))
apply(from + 1, writes)
local missed = 0
for i = 1, streams do
  local stream, position = KEYS[1 + 2 * i], KEYS[2 + 2 * i]
  local at, handled = ARGV[5 + 2 * i], tonumber(ARGV[6 + 2 * i])
  local was = before[i]
  redis.call('HSET', position, 'id', at)
  missed = missed + moved(stream, position, ARGV[4], was[1] or at, count_of(was[2]), at, handled)
end
return { 'ok', missed }

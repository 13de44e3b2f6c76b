-- A batch counts here, wholly or not at all: results, state and position move together, and only for
-- the owner with the newest fencing token.
-- KEYS: lease, position, stream, then the keys of the results
-- ARGV: worker, token, lease_ms, group, expected position, new position, entries handled,
--       then for each write: command, index in KEYS, number of arguments, arguments...
-- Returns 'ok'; 'lost' where Redis has forgotten everything; 'stale' where the stream is not ours
local is = redis.call('HMGET', KEYS[2], 'owner', 'token', 'id')
if not is[2] then return 'lost' end
-- Not the lease decides but who took the last token: a lease that ran out is still ours while nobody
-- has taken one since. The name is compared too, because tokens begin again in an emptied Redis.
if is[1] ~= ARGV[1] or is[2] ~= ARGV[2] or is[3] ~= ARGV[5] then return 'stale' end

-- Nothing is rolled back in a script: what could be refused half-way is looked at before.
local kinds = { HSET = 'hash', HDEL = 'hash', XADD = 'stream' }
local i = 8
while i <= #ARGV do
  local kind = kinds[ARGV[i]]
  local there = kind and redis.call('TYPE', KEYS[tonumber(ARGV[i + 1])]).ok
  if kind and there ~= kind and there ~= 'none' then
    return redis.error_reply('WRONGTYPE a result key is a ' .. there .. ', not a ' .. kind)
  end
  i = i + 3 + tonumber(ARGV[i + 2])
end

redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
i = 8
while i <= #ARGV do
  local last = i + 2 + tonumber(ARGV[i + 2])
  local command, key = ARGV[i], KEYS[tonumber(ARGV[i + 1])]
  if command == 'XADD' then
    -- with the source's ID: what is not newer is there already
    local r = redis.pcall('XADD', key, unpack(ARGV, i + 3, last))
    if type(r) == 'table' and r.err and not string.find(r.err, 'equal or smaller', 1, true) then
      return r
    end
  elseif last < i + 3 then
    redis.call(command, key)
  else
    redis.call(command, key, unpack(ARGV, i + 3, last))
  end
  i = last + 1
end

local at, read, added, newest = ARGV[6], redis.call('HGET', KEYS[2], 'read'), nil, nil
local x = redis.pcall('XINFO', 'STREAM', KEYS[3])
if not x.err then
  for j = 1, #x, 2 do
    if x[j] == 'entries-added' then added = x[j + 1] end
    if x[j] == 'last-generated-id' then newest = x[j + 1] end
  end
end
if added and at == newest then
  read = string.format('%.0f', added)
elseif read then
  read = string.format('%.0f', tonumber(read) + tonumber(ARGV[7]))
end
redis.call('HSET', KEYS[2], 'id', at)
if read then redis.call('HSET', KEYS[2], 'read', read) end
if x.err then return 'ok' end

-- XINFO GROUPS shows where we are. ENTRIESREAD came with the same version as entries-added (7.0).
local position = { KEYS[3], ARGV[4], at }
if added and read and tonumber(read) <= added then
  position[4], position[5] = 'ENTRIESREAD', read
end
local r = redis.pcall('XGROUP', 'SETID', unpack(position))
if type(r) == 'table' and r.err and string.find(r.err, 'NOGROUP', 1, true) then
  redis.pcall('XGROUP', 'CREATE', unpack(position))
end
return 'ok'

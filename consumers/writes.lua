-- Applying results, for the scripts that say when they count. A write is: command, index in KEYS,
-- number of arguments, arguments...
local KIND = {
  SET = false, DEL = false, INCRBY = 'string', HSET = 'hash', HDEL = 'hash', HINCRBY = 'hash',
  XADD = 'stream', XDEL = 'stream',
}

-- Nothing is rolled back in a script: what could be refused half-way is looked at before.
-- Returns why one of `n` writes from ARGV[i] on would be refused (nil: none), and where they end.
local function refusal(i, n)
  local why = nil
  for _ = 1, n do
    local command, key = ARGV[i], KEYS[tonumber(ARGV[i + 1])]
    local kind = KIND[command]
    if kind then
      local there = redis.call('TYPE', key).ok
      if there ~= kind and there ~= 'none' then
        why = 'WRONGTYPE a result key is a ' .. there .. ', not a ' .. kind
      elseif command == 'HINCRBY' or command == 'INCRBY' then
        local now = command == 'INCRBY' and redis.call('GET', key)
          or command == 'HINCRBY' and redis.call('HGET', key, ARGV[i + 3])
        if now and (#now > 18 or not string.match(now, '^-?%d+$')) then
          why = 'ERR a result to be added to is not a number, or too large'
        end
      end
    end
    i = i + 3 + tonumber(ARGV[i + 2])
  end
  return why, i
end

local function apply(i, n)
  for _ = 1, n do
    local last = i + 2 + tonumber(ARGV[i + 2])
    local command, key = ARGV[i], KEYS[tonumber(ARGV[i + 1])]
    if command == 'XADD' then
      -- with the source's ID: what is not newer is there already
      local r = redis.pcall('XADD', key, unpack(ARGV, i + 3, last))
      if type(r) == 'table' and r.err and not string.find(r.err, 'equal or smaller', 1, true) then
        error(r.err)
      end
    elseif last < i + 3 then
      redis.call(command, key)
    else
      redis.call(command, key, unpack(ARGV, i + 3, last))
    end
    i = last + 1
  end
end

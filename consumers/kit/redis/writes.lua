-- Checking and applying results, for the scripts that settle or commit. A write is: command, index in
-- KEYS, number of arguments, arguments...
local KIND = {
  SET = false, DEL = false, INCRBY = 'string', HSET = 'hash', HDEL = 'hash', HINCRBY = 'hash',
  XADD = 'stream', XDEL = 'stream',
}

-- Whether the text is an integer in the form of Redis, which increments no other ('007', '-0').
local function is_number(text, digits)
  return #text <= digits + 1 and (text == '0' or string.match(text, '^-?[1-9]%d*$'))
end

local function is_below_2_64(text)
  return #text < 20 or #text == 20 and text <= '18446744073709551615'
end

local function is_id(text)
  local ms, seq = string.match(text, '^(%d+)%-(%d+)$')
  return ms and is_below_2_64(ms) and is_below_2_64(seq) and not string.match(text, '^0+%-0+$')
end

-- Whether Redis accepts the arguments of a command, ARGV[i] to ARGV[i + n - 1].
local function is_well_formed(command, i, n)
  if n > 7000 then return false end -- unpack() fails above some 8,000 values
  if command == 'SET' or command == 'INCRBY' then
    return n == 1 and (command == 'SET' or is_number(ARGV[i], 15))
  elseif command == 'DEL' then
    return n == 0
  elseif command == 'HSET' then
    return n >= 2 and n % 2 == 0
  elseif command == 'HINCRBY' then
    return n == 2 and is_number(ARGV[i + 1], 15)
  elseif command == 'XADD' then -- MAXLEN ~ number ID, fields
    local most, id = ARGV[i + 2], n >= 6 and n % 2 == 0 and ARGV[i + 3]
    return id and is_number(most, 15) and tonumber(most) >= 0 and (id == '*' or is_id(id))
  end
  return KIND[command] and n >= 1
end

-- Whether the last ID of a stream is the largest possible one: then XADD with '*' fails.
local function is_full(key)
  local x = redis.call('XINFO', 'STREAM', key)
  for i = 1, #x, 2 do
    if x[i] == 'last-generated-id' then return x[i + 1] == '18446744073709551615-18446744073709551615' end
  end
end

-- Redis does not roll back a script, so all writes are checked before the first one is applied, with
-- the effects of earlier writes taken into account.
-- Returns the reason why one of `n` writes from ARGV[i] on would be refused (nil: none), and their end.
local function refusal(i, n)
  local why, kinds, values = nil, {}, {}
  for _ = 1, n do
    local command, key, count = ARGV[i], KEYS[tonumber(ARGV[i + 1])], tonumber(ARGV[i + 2])
    local from, kind = i + 3, KIND[command]
    if not is_well_formed(command, from, count) then
      why = why or 'ERR the arguments of ' .. command .. ' are not such as Redis takes'
    elseif command == 'SET' then
      kinds[key], values[key] = 'string', { [''] = ARGV[from] }
    elseif command == 'DEL' then
      kinds[key], values[key] = 'none', {}
    else
      local there = kinds[key] or redis.call('TYPE', key).ok
      if there ~= kind and there ~= 'none' then
        why = why or 'WRONGTYPE a result key is a ' .. there .. ', not a ' .. kind
      elseif command == 'XADD' and there == 'stream' and ARGV[from + 3] == '*' and not kinds[key]
        and is_full(key) then
        why = why or 'ERR the last ID of a result key is the last there can be'
      elseif command == 'HSET' then
        values[key] = values[key] or {}
        for j = from, from + count - 1, 2 do values[key]['f' .. ARGV[j]] = ARGV[j + 1] end
      elseif command == 'HDEL' then
        values[key] = values[key] or {}
        for j = from, from + count - 1 do values[key]['f' .. ARGV[j]] = '0' end
      elseif command == 'HINCRBY' or command == 'INCRBY' then
        local field = command == 'HINCRBY' and 'f' .. ARGV[from] or ''
        local now = values[key] and values[key][field]
        if not now and not kinds[key] then
          now = command == 'INCRBY' and redis.call('GET', key)
            or command == 'HINCRBY' and redis.call('HGET', key, ARGV[from])
        end
        if now and not is_number(now, 17) then
          why = why or 'ERR a result to be added to is not a number, or too large'
        end
      end
      if kinds[key] == 'none' then kinds[key] = kind end
    end
    i = from + count
  end
  return why, i
end

local function apply(i, n)
  for _ = 1, n do
    local last = i + 2 + tonumber(ARGV[i + 2])
    local command, key = ARGV[i], KEYS[tonumber(ARGV[i + 1])]
    if command == 'XADD' then
      -- with the source's ID: an entry that is not newer was appended before
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

-- Trim a stream to its retention, but leave entries that the given groups have not settled yet.
-- KEYS: stream    ARGV: max_entries ('' = no limit), max_age_ms ('' = no limit), most at once, groups
-- Returns {1 if there is more to trim, the group that delays trimming (or '')}
local k, most = KEYS[1], tonumber(ARGV[3])
local length = redis.call('XLEN', k)
if length == 0 then return { 0, '' } end

local function less(a, b)
  local am, as = string.match(a, '^(%d+)-?(%d*)$')
  local bm, bs = string.match(b, '^(%d+)-?(%d*)$')
  return tonumber(am) < tonumber(bm) or (am == bm and (tonumber(as) or 0) < (tonumber(bs) or 0))
end

-- The first entry to stay.
local cut, more = '0-0', 0
if ARGV[1] ~= '' and length > tonumber(ARGV[1]) then
  local over = math.min(length - tonumber(ARGV[1]), most)
  local first = redis.call('XRANGE', k, '-', '+', 'COUNT', over + 1)
  cut = first[#first][1]
  if over == most then more = 1 end
end
if ARGV[2] ~= '' then
  local newest = redis.call('XREVRANGE', k, '+', '-', 'COUNT', 1)[1][1]
  local ms = tonumber(string.match(newest, '^%d+')) - tonumber(ARGV[2])
  local oldest = string.format('%.0f-0', math.max(0, ms))
  if less(cut, oldest) then cut = oldest end
end
if cut == '0-0' then return { 0, '' } end

local keeper = ''
for _, g in ipairs(redis.call('XINFO', 'GROUPS', k)) do
  local one = {}
  for j = 1, #g, 2 do one[g[j]] = g[j + 1] end
  for i = 4, #ARGV do
    if ARGV[i] == one.name then
      local at = one['last-delivered-id']
      if one.pending > 0 then at = redis.call('XPENDING', k, one.name)[2] end
      if less(at, cut) then
        cut, keeper, more = at, one.name, 0
      end
    end
  end
end
redis.call('XTRIM', k, 'MINID', '~', cut)
return { more, keeper }

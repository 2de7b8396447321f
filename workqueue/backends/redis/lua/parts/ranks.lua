-- Where a position stands in a sorted set: no member is needed there, since the one that was may be gone.

-- Whether a sorts before b as members of one score do: by bytes. Lua's own comparison goes by the server's locale.
local function precedes(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end

-- How many members of `zset` stand before (score, key); with `at`, or there. O(log² n), however many have this score.
local function members_before(zset, score, key, at)
  local low = call('ZCOUNT', zset, '-inf', '(' .. score)
  local high = low + call('ZCOUNT', zset, score, score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local member = call('ZRANGE', zset, middle, middle)[1]
    if precedes(member, key) or (at and member == key) then low = middle + 1 else high = middle end
  end
  return low
end

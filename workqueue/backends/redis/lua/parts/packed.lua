-- What the usual steps read of packed entries. The rest of it, see records.lua, is defined only where it is needed.

local byte, sub = string.byte, string.sub
local PLAIN = 80 -- P
local MOST_ATTEMPTS = 2147483646 -- one more, which a start makes of it, still fits

-- A stored number as the rules take it, whatever somebody else wrote: whole, and the nearest in range. records.py does the same.
local function whole(number, low, high)
  if number >= low and number <= high then return math.floor(number) end
  return number > high and high or low
end

local function whole_us(number)
  return whole(number, 0, LATEST_US)
end

-- The attempts of a packed entry that begins at `at`.
local function attempts_at(packed, at)
  if byte(packed, at) == PLAIN or #packed < at + 12 then return 0 end
  return whole(struct.unpack('>i4', packed, at + 9), 0, MOST_ATTEMPTS)
end

-- What the running hash holds: token and owner, each after its length, and the entry as it was while queued.

local function token_of(running)
  return sub(running, 2, (byte(running) or 0) + 1)
end

local function unpack_running(running)
  local token = byte(running)
  local owner = byte(running, token + 2)
  return sub(running, token + 3, token + 2 + owner), sub(running, token + 3 + owner)
end

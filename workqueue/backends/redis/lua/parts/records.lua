-- How an entry is packed; the other side is records.py. p priority, a attempts, q queued, f first queued,
-- n not-before (0 = none), times in microseconds; rest = '' or packed meta and payload.
-- A plain entry, one enqueue without options, is packed as P and its queued time, which is also its score in the lane.

local ENTRY = '>Bi8i4i8i8i8' -- floor, p, a, q, f, n
local ENTRY_BYTES = 37
local HIGHEST_PRIORITY = LATEST_US   -- the largest whole number that a double tells from the next

local function plain_entry(q)
  q = whole_us(q)
  return {p = 0, a = 0, q = q, f = q, n = 0, floor = false, rest = ''}
end

-- The queued time that a plain record says, nil if it is no number.
local function plain_time(record, at)
  local text = string.sub(record, at + 1)
  return string.find(text, '^%-?[%d.]+e?[+-]?%d*$') and tonumber(text)
end

-- Whether `record`, from `at` on, can be read: whole numbers, and a rest as long as it says.
local function is_readable(record, at)
  at = at or 1
  if not record then return false end
  if string.byte(record, at) == PLAIN then return plain_time(record, at) ~= nil end
  local rest = at + ENTRY_BYTES
  if #record < rest - 1 then return false end
  if #record == rest - 1 then return true end
  return #record >= rest + 3 and struct.unpack('>I4', record, rest) <= #record - rest - 3
end

local function unpack_entry(record)
  if string.byte(record) == PLAIN then return plain_entry(plain_time(record, 1)) end
  local floor, p, a, q, f, n, at = struct.unpack(ENTRY, record)
  return {
    p = whole(p, -HIGHEST_PRIORITY, HIGHEST_PRIORITY), a = whole(a, 0, MOST_ATTEMPTS),
    q = whole_us(q), f = whole_us(f), n = whole_us(n), floor = floor ~= 0, rest = string.sub(record, at),
  }
end

local function pack_entry(e)
  return struct.pack(ENTRY, e.floor and 1 or 0, e.p, e.a, e.q, e.f, e.n) .. e.rest
end

-- Whether what runs can be read: token, owner and entry.
local function is_running_readable(running)
  local token = string.byte(running or '')
  local owner = token and string.byte(running, token + 2)
  return owner ~= nil and is_readable(running, token + 3 + owner)
end

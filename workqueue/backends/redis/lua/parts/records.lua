-- How an entry is packed; the other side is records.py. p priority, a attempts, q queued, f first queued,
-- n not-before (0 = none), times in microseconds; rest = '' or packed meta and payload.
-- A plain entry, one enqueue without options, is packed as P and its queued time, which is also its score in the lane.

local ENTRY = '>Bi8i4i8i8i8' -- floor, p, a, q, f, n
local ENTRY_BYTES = 37
local PLAIN = 80 -- P

local function plain_entry(q)
  return {p = 0, a = 0, q = q, f = q, n = 0, floor = false, rest = ''}
end

-- Whether `record`, from `at` on, can be read: whole numbers, and a rest as long as it says.
local function is_readable(record, at)
  at = at or 1
  if not record then return false end
  if string.byte(record, at) == PLAIN then return tonumber(string.sub(record, at + 1)) ~= nil end
  local rest = at + ENTRY_BYTES
  if #record < rest - 1 then return false end
  if #record == rest - 1 then return true end
  return #record >= rest + 3 and struct.unpack('>I4', record, rest) <= #record - rest - 3
end

local function unpack_entry(record)
  if string.byte(record) == PLAIN then return plain_entry(tonumber(string.sub(record, 2))) end
  local floor, p, a, q, f, n, at = struct.unpack(ENTRY, record)
  return {p = p, a = a, q = q, f = f, n = n, floor = floor == 1, rest = string.sub(record, at)}
end

local function pack_entry(e)
  return struct.pack(ENTRY, e.floor and 1 or 0, e.p, e.a, e.q, e.f, e.n) .. e.rest
end

-- What the running hash holds: token and owner, each after its length, and the entry as it was while queued.

local function token_of(running)
  return string.sub(running, 2, string.byte(running) + 1)
end

local function unpack_running(running)
  local token = string.byte(running)
  local owner = string.byte(running, token + 2)
  return string.sub(running, token + 3, token + 2 + owner), string.sub(running, token + 3 + owner)
end

-- Whether what runs can be read: token, owner and entry.
local function is_running_readable(running)
  local token = running and string.byte(running)
  local owner = token and string.byte(running, token + 2)
  return owner ~= nil and is_readable(running, token + 3 + owner)
end

-- The attempts of a packed entry that begins at `at`.
local function attempts_at(packed, at)
  return string.byte(packed, at) == PLAIN and 0 or (struct.unpack('>i4', packed, at + 9))
end

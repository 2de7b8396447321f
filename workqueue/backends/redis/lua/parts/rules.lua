-- The one port of workqueue/rules.py: what an entry looks like after each step. Pure; held to the original by the
-- conformance and model suites.

local BACKOFF_UNIT_US = 30000000
local BACKOFF_CAP_US = 600000000

local function is_plain(e)
  return e.p == 0 and e.a == 0 and e.f == e.q and e.n == 0 and not e.floor and e.rest == ''
end

local function same_entry(x, y)
  return x.n == y.n and x.p == y.p and x.a == y.a and x.q == y.q and x.f == y.f and x.floor == y.floor
    and x.rest == y.rest
end

-- meta: (length of name 1, length of value 2, name, value)*, after its own length; then 1 and the payload, if any

local function unpack_meta(text, names, values)
  local at = 1
  while at + 2 <= #text do -- what is cut off says nothing
    local name_size, value_size, from = struct.unpack('>BI2', text, at)
    local name = string.sub(text, from, from + name_size - 1)
    at = from + name_size + value_size
    if not values[name] then names[#names + 1] = name end
    values[name] = string.sub(text, from + name_size, at - 1)
  end
end

local function merge_rest(newer, older)
  if newer == '' then return older end
  if older == '' then return newer end
  local new_size, new_at = struct.unpack('>I4', newer)
  local old_size, old_at = struct.unpack('>I4', older)
  local names, values, meta = {}, {}, {}
  unpack_meta(string.sub(older, old_at, old_at + old_size - 1), names, values)
  unpack_meta(string.sub(newer, new_at, new_at + new_size - 1), names, values)
  for i, name in ipairs(names) do
    meta[i] = struct.pack('>BI2', #name, #values[name]) .. name .. values[name]
  end
  local packed = table.concat(meta)
  local payload = string.sub(newer, new_at + new_size)
  if payload == '' then payload = string.sub(older, old_at + old_size) end
  return struct.pack('>I4', #packed) .. packed .. payload
end

-- The name under which a queued key's last error travels in its meta, as in options.py.
local LAST_ERROR = 'last-error'

local function with_error(rest, error)
  if error == '' then return rest end
  local meta = struct.pack('>BI2', #LAST_ERROR, #error) .. LAST_ERROR .. error
  return merge_rest(struct.pack('>I4', #meta) .. meta, rest)
end

local function without_error(rest)
  if not string.find(rest, LAST_ERROR, 1, true) then return rest end
  local size, at = struct.unpack('>I4', rest)
  local names, values, meta = {}, {}, {}
  unpack_meta(string.sub(rest, at, at + size - 1), names, values)
  for _, name in ipairs(names) do
    if name ~= LAST_ERROR then
      meta[#meta + 1] = struct.pack('>BI2', #name, #values[name]) .. name .. values[name]
    end
  end
  local packed, payload = table.concat(meta), string.sub(rest, at + size)
  if packed == '' and payload == '' then return '' end
  return struct.pack('>I4', #packed) .. packed .. payload
end

local function merge_not_before(existing, incoming)
  if existing.floor and incoming.floor then return math.max(existing.n, incoming.n), true end
  if existing.floor then return existing.n, true end
  if incoming.floor then return incoming.n, true end
  return math.min(existing.n, incoming.n), false -- 0, none, is the earliest
end

local function merge(existing, incoming, rest, queued)
  local n, floor = merge_not_before(existing, incoming)
  return {
    p = math.max(existing.p, incoming.p), a = math.max(existing.a, incoming.a), q = queued,
    f = math.min(existing.f, incoming.f), n = n, floor = floor, rest = rest,
  }
end

local function merge_incoming(existing, incoming)
  return merge(existing, incoming, merge_rest(incoming.rest, existing.rest), existing.q)
end

local function merge_into_twin(twin, returning, release)
  local queued = release and math.min(twin.q, returning.q) or twin.q
  return merge(twin, returning, merge_rest(twin.rest, returning.rest), queued)
end

local function started(e)
  return {p = e.p, a = e.a + 1, q = e.q, f = e.f, n = 0, floor = false, rest = e.rest}
end

local function bare_requeue_delay(e)
  return e.p > 0 and math.min(e.a * BACKOFF_UNIT_US, BACKOFF_CAP_US) or 0
end

-- `how`: b bare, d delay, f delay that is a floor, o backoff; then the microseconds; then why it failed, or ''
local function requeued(e, how, delay, error)
  local again = how == 'd' or how == 'f'
  if how == 'b' then delay = bare_requeue_delay(e) end
  local n = delay > 0 and math.min(wall + delay, LATEST_US) or 0
  local rest = again and without_error(e.rest) or with_error(e.rest, error)
  return {p = e.p, a = again and 0 or e.a, q = wall, f = e.f, n = n, floor = how == 'f', rest = rest}
end

local function released(e)
  return {p = e.p, a = e.a - 1, q = e.q, f = e.f, n = 0, floor = false, rest = e.rest}
end

local function spared(twin)
  local rest = without_error(twin.rest)
  return {p = twin.p, a = 0, q = twin.q, f = twin.f, n = twin.n, floor = twin.floor, rest = rest}
end

local function redriven(e, queued)
  local back = {p = e.p, a = 0, q = wall, f = wall, n = 0, floor = false, rest = e.rest}
  if not queued then return back end
  return spared(merge_into_twin(queued, back))
end

local function pack_dead(e, error)
  local entry = {p = e.p, a = e.a, q = e.q, f = e.f, n = e.n, floor = e.floor, rest = without_error(e.rest)}
  return struct.pack('>i8I4', wall, #error) .. error .. pack_entry(entry)
end

local function unpack_dead(letter)
  local _, size, at = struct.unpack('>i8I4', letter)
  return unpack_entry(string.sub(letter, at + size))
end

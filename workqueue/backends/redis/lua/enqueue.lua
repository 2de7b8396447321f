-- uses prelude limits wake
-- Store enqueues, each merged with the queued entry of its key if there is one.
-- ARGV[5...]  a key as it is, or, with options: 1, floor, priority, not-before, length of the key, key, rest
-- Returns: how many were new, how many were merged, then each wait until eligible that is not zero, in microseconds.
-- Atomic: nothing comes between finding an entry and merging into it, so an event can neither be lost nor refill
-- attempts. Costs O(log n) a key: two bulk reads and, for keys without options, one bulk write.

if kept_answer then return kept_answer end

local keys, incoming, with_options = {unpack(ARGV, 5)}, {}, {}
for i, item in ipairs(keys) do
  if string.byte(item) == 1 then -- no key begins with a control character
    local floor, p, n, size, at = struct.unpack('>xBi8i8I2', item)
    local key, rest = string.sub(item, at, at + size - 1), string.sub(item, at + size)
    incoming[i] = {p = p, a = 0, q = wall, f = wall, n = n, floor = floor == 1, rest = rest}
    keys[i], with_options[key] = key, true
  end
end

local running, records = read(RUNNING, keys), read(RECORDS, keys)
local plain, others, now = {}, {}, int(wall)
for i, key in ipairs(keys) do
  if running[i] or records[i] or with_options[key] then
    others[#others + 1] = i
  else
    plain[#plain + 1] = now
    plain[#plain + 1] = key
  end
end

-- Of those that are queued already nothing is to be stored, so that it cannot be refused either, by a full Redis, say.
local added = #plain > 0 and redis.pcall('ZADD', LANE .. '0', 'NX', unpack(plain)) or 0
if type(added) == 'table' then
  for i = 2, #plain, 2 do
    if not call('ZSCORE', LANE .. '0', plain[i]) then return added end
  end
  added = 0
end
local answer = {added, #plain / 2 - added}
if added == 0 and #others == 0 then return answer end -- nothing is written here, either
if added > 0 then
  call('ZADD', LANES, 0, '0')
  ready = call('HINCRBY', META, 'ready', added)
end

-- What merging takes is defined only where it is needed: for a lone new key that would be a third of the time.
if #others > 0 then
-- uses packed records rules tally lanes places

local function enqueue(i, key, score)
  local state = state_of(key, running[i], records[i], score)
  local entry = incoming[i] or plain_entry(wall)
  local existing = state.entry
  put(state, existing and merge_incoming(existing, entry) or entry)
  answer[existing and 2 or 1] = answer[existing and 2 or 1] + 1
  if state.entry.n > wall then answer[#answer + 1] = state.entry.n - wall end
end

local names = {}
for place, i in ipairs(others) do
  names[place] = keys[i]
end
local scores = call('ZMSCORE', LANE .. '0', unpack(names))
for place, i in ipairs(others) do
  enqueue(i, keys[i], scores[place])
end
store()
end

-- What the wake-up of a waiter brings along: the only key there is, started by the lease request that he announced. It is
-- answered as if he had sent it now, so that he may send it nevertheless. Nothing if he announced none.
local function start_for(waiter)
  local offer = call('GET', OFFER .. waiter)
  local due = call('ZRANGE', DELAYED, 0, 0, 'WITHSCORES')[2]
  if not offer or due and tonumber(due) <= wall then return '' end
  local number, lease, size, at = struct.unpack('>i8i8B', offer)
  local token, owner = string.sub(offer, at, at + size - 1) .. 1, string.sub(offer, at + size)
  local key, record = keys[1], 'P' .. now

-- uses tally

  local function start()
    call('HSET', RUNNING, key, string.char(#token) .. token .. string.char(#owner) .. owner .. record)
    call('ZADD', LEASES, steady + lease, key)
    call('ZREM', LANE .. '0', key)
    if call('EXISTS', LANE .. '0') == 0 then call('ZREM', LANES, '0') end
    counts.ready = -1
    count_attempts(1, 1)
    count_owner(owner, 1)
    write_counts()
    call('DEL', OFFER .. waiter)
    keep_for(waiter .. ':offer', number, {0, wall, {}, {key}})
  end

  return struct.pack('>i8i8i8I2', number, steady, wall, #key) .. key .. record, start
end

wake(#keys == 1 and #others == 0 and ready == 1 and not rate and start_for or nil)
return keep(answer)

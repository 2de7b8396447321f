-- uses prelude limits wake
-- Store enqueues, each merged with the queued entry of its key if there is one.
-- ARGV[5...]  a key as it is, or, with options: 1, floor, priority, not-before, length of the key, key, rest
-- Returns: how many were new, how many were merged, then each wait until eligible that is not zero, in microseconds.
-- Atomic: nothing comes between finding an entry and merging into it, so an event can neither be lost nor refill
-- attempts. Costs O(log n) a key: three bulk reads and, for new keys without options, one bulk write.

if kept_answer then return kept_answer end

local keys, incoming, with_options = {}, {}, {}
for i = 5, #ARGV do
  local item = ARGV[i]
  if string.byte(item) == 1 then -- no key begins with a control character
    local floor, p, n, size, at = struct.unpack('>xBi8i8I2', item)
    local key = string.sub(item, at, at + size - 1)
    local rest = string.sub(item, at + size)
    keys[#keys + 1] = key
    incoming[#keys] = {p = p, a = 0, q = wall, f = wall, n = n, floor = floor == 1, rest = rest}
    with_options[key] = true
  else
    keys[#keys + 1] = item
  end
end

local running = call('HMGET', RUNNING, unpack(keys))
local records = call('HMGET', RECORDS, unpack(keys))
local plain = call('ZMSCORE', LANE .. '0', unpack(keys))

local answer = {0, 0}
local fresh, fresh_keys, others = {}, {}, {}

local function count_enqueue(is_new, until_eligible)
  local i = is_new and 1 or 2
  answer[i] = answer[i] + 1
  if until_eligible > 0 then answer[#answer + 1] = until_eligible end
end

for i, key in ipairs(keys) do
  if running[i] or records[i] or with_options[key] then
    others[#others + 1] = i
  elseif plain[i] or fresh[key] then
    count_enqueue(false, 0) -- the same again: nothing to write
  else
    fresh[key] = true
    fresh_keys[#fresh_keys + 1] = wall
    fresh_keys[#fresh_keys + 1] = key
    count_enqueue(true, 0)
  end
end

if #fresh_keys == 0 and #others == 0 then return answer end -- nothing is written, so that nothing can be refused
if #fresh_keys > 0 then
  bulk('ZADD', LANE .. '0', fresh_keys, 2)
  call('ZADD', LANES, 0, '0')
  ready = call('HINCRBY', META, 'ready', #fresh_keys / 2)
end

-- What merging takes is defined only where it is needed: for a lone new key that would be a third of the time.
if #others > 0 then
-- uses records rules lanes places

local function enqueue(i, key)
  local state = state_of(key, running[i], records[i], plain[i])
  local entry = incoming[i] or plain_entry(wall)
  local existing = state.entry
  put(state, existing and merge_incoming(existing, entry) or entry)
  count_enqueue(not existing, state.entry.n > 0 and state.entry.n - wall or 0)
end

for _, i in ipairs(others) do
  enqueue(i, keys[i])
end
store()
end

wake()
return keep(answer)

-- uses prelude packed tally limits wake
-- End attempts. Whoever holds the token, and only he, may write; a lease that lapsed but was not recovered still counts.
-- ARGV[5...]  key, token, verb: c complete, l release, d + error = dead-letter, r + how, see places.lua = requeue
-- Returns for each: -1 = the lease was lost, nothing changed; else how long until the key is eligible again.
-- Atomic: the token is checked and the key moved in one step, so that of two settles for one lease one at most is
-- accepted. Costs O(log n) a key: a bulk read, and one bulk write for each kind of change.

if kept_answer then return kept_answer end

local keys = {}
for i = 5, #ARGV, 3 do
  keys[#keys + 1] = ARGV[i]
end
local running = call('HMGET', RUNNING, unpack(keys))
local records, letters = {}, {}
if call('EXISTS', RECORDS, DEAD) > 0 then
  records, letters = read(RECORDS, keys), read(DEAD, keys)
end

-- What a lease counted for that ends and leaves nothing.
local function count_end(running_)
  local owner_at = byte(running_) + 3
  local record_at = owner_at + (byte(running_, owner_at - 1) or 0)
  count_owner(sub(running_, owner_at, record_at - 1), -1)
  count_attempts(attempts_at(running_, record_at) + 1, -1)
end

-- The common settle is a success that meets neither twin nor dead letter: it only ends.
local answer, ended, others, is_over = {}, {}, {}, {}
for i, key in ipairs(keys) do
  answer[i] = -1
  if not is_over[key] and running[i] and token_of(running[i]) == ARGV[2 + 3 * i + 1] then
    is_over[key] = true -- and not to be ended by a later settle of this batch
    if ARGV[2 + 3 * i + 2] == 'c' and not (records[i] or letters[i]) then
      count_end(running[i])
      ended[#ended + 1] = key
      answer[i] = 0
    else
      others[#others + 1] = i
    end
  end
end

if #ended + #others == 0 then return answer end
if #ended > 0 then
  bulk('HDEL', RUNNING, ended)
  bulk('ZREM', LEASES, ended)
end

-- What the others take is defined only where there are any: to define it costs as much as to settle four keys.
if #others > 0 then
-- uses records rules lanes places

local function apply(state, verb, letter)
  local kind, entry = string.sub(verb, 1, 1), end_attempt(state)
  if kind == 'r' then
    requeue(state, entry, string.sub(verb, 2))
    return math.max(state.entry.n - wall, 0)
  elseif kind == 'l' then
    local back = released(entry)
    put(state, state.entry and merge_into_twin(state.entry, back, true) or back)
  elseif kind == 'd' then
    give_up(state, entry, string.sub(verb, 2))
  elseif letter then
    state.unletter = true
  end
  return 0
end

for _, i in ipairs(others) do
  local state = state_of(keys[i], running[i], records[i])
  answer[i] = is_in_progress(state) and apply(state, ARGV[2 + 3 * i + 2], letters[i]) or -1
end
store()
end

write_counts()
wake()
return keep(answer)

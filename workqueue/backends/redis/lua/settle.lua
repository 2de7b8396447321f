-- uses prelude records rules lanes limits wake places
-- End attempts. Whoever holds the token, and only he, may write; a lease that lapsed but was not recovered still counts.
-- ARGV[5...]  key, token, verb: c complete, l release, d + error = dead-letter, r + how, see places.lua = requeue
-- Returns for each: -1 = the lease was lost, nothing changed; else how long until the key is eligible again.
-- Atomic: the token is checked and the key moved in one step, so that of two settles for one lease one at most is
-- accepted. Costs O(log n) a key: two bulk reads, and one bulk write for each kind of change.

if kept_answer then return kept_answer end

local keys = {}
for i = 5, #ARGV, 3 do
  keys[#keys + 1] = ARGV[i]
end
local running = call('HMGET', RUNNING, unpack(keys))
local records = call('HMGET', RECORDS, unpack(keys))
local any_dead = call('EXISTS', DEAD) == 1

local function apply(state, verb)
  local kind, entry = string.sub(verb, 1, 1), end_attempt(state)
  if kind == 'r' then
    requeue(state, entry, string.sub(verb, 2))
    return math.max(state.entry.n - wall, 0)
  elseif kind == 'l' then
    local back = released(entry)
    put(state, state.entry and merge_into_twin(state.entry, back, true) or back)
  elseif kind == 'd' then
    give_up(state, entry, string.sub(verb, 2))
  elseif any_dead then
    state.unletter = true
  end
  return 0
end

-- The common settle: a success that meets neither twin nor dead letter.
local completed, ended = {}, {}

local function complete(key, running_)
  local owner_at = string.byte(running_) + 3
  local record_at = owner_at + (string.byte(running_, owner_at - 1) or 0)
  count_owner(string.sub(running_, owner_at, record_at - 1), -1)
  count_attempts(attempts_at(running_, record_at) + 1, -1)
  completed[key] = true
  ended[#ended + 1] = key
end

local function settle(i, key, verb)
  if verb == 'c' and not (records[i] or any_dead or states[key]) then
    complete(key, running[i])
    return 0
  end
  local state = state_of(key, running[i], records[i])
  return is_in_progress(state) and apply(state, verb) or -1
end

local answer, applied = {}, false
for i, key in ipairs(keys) do
  local is_over = completed[key] or states[key] and not states[key].running -- by an earlier settle of this batch
  if not is_over and running[i] and token_of(running[i]) == ARGV[2 + 3 * i + 1] then
    answer[i] = settle(i, key, ARGV[2 + 3 * i + 2])
    applied = true
  else
    answer[i] = -1
  end
end

if not applied then return answer end
if #ended > 0 then
  bulk('HDEL', RUNNING, ended)
  bulk('ZREM', LEASES, ended)
end
store()
wake()
return keep(answer)

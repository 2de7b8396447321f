-- End attempts. Whoever holds the token, and only he, may write; a lease that lapsed but was not recovered still counts.
-- ARGV[5...]  key, token, verb: c complete, l release, d + error = dead-letter, r + how + microseconds = requeue
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
    requeue(state, entry, string.sub(verb, 2, 2), tonumber(string.sub(verb, 3)))
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

local answer, applied = {}, false
for i, key in ipairs(keys) do
  local state = state_of(key, running[i], records[i])
  local token, verb = ARGV[2 + 3 * i + 1], ARGV[2 + 3 * i + 2]
  if state.running and token_of(state.running) == token then
    answer[i] = apply(state, verb)
    applied = true
  else
    answer[i] = -1
  end
end

if not applied then return answer end
store()
wake()
return keep(answer)

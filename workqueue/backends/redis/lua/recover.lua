-- uses prelude packed records rules tally lanes limits wake places start_next recorded
-- Requeue or dead-letter orphans, then do as lease.lua.
-- ARGV: see parts/start_next.lua; [11] the error of orphans that are given up  [12...] orphan, its wait in microseconds, -1 = is
-- given up
-- Returns what lease.lua returns; of each recovered orphan key, attempts, owner, priority, first queued, 1 = given up.
-- What becomes of an orphan the asker says, who may have a rule of his own; one that he did not know of comes next time.
-- Atomic: an orphan is judged lapsed and taken in one step, so a renewal comes before or after, and with its slot free
-- the limit is applied in that same step. Costs O(log n) an orphan, and what lease.lua costs.

if kept_answer then return rebuild(kept_answer) end

forget_waiter()
local lapsed = lapsed_keys()
local waits, keys = {}, {}
for i = 12, #ARGV, 2 do
  waits[ARGV[i]] = tonumber(ARGV[i + 1])
end
for _, key in ipairs(lapsed) do
  if waits[key] then keys[#keys + 1] = key end
end

local recovered = {}
if #keys > 0 then read_states(keys) end

local function recover(state, wait)
  local entry, owner = end_attempt(state)
  local is_last = wait < 0
  if is_last then
    give_up(state, entry, ARGV[11])
  else
    requeue(state, entry, 'o' .. int(wait))
  end
  append(recovered, 1, state.key, entry.a, owner, entry.p, entry.f, is_last and 1 or 0)
end

for _, state in ipairs(touched) do
  if is_in_progress(state) then recover(state, waits[state.key]) end
end
store()
if #keys < #lapsed or #lapsed == ORPHANS_AT_ONCE then return answer(true, recovered[1] or {}, {}, {}) end
return lease(recovered[1] or {}, promote, with_records)

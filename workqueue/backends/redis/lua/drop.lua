-- uses prelude packed records rules tally lanes limits wake places
-- Remove one listed key from the queue, if its entry is unchanged.
-- ARGV[5] key  [6] its queued time  [7] its record, '' = none
-- Returns 1, or 0 when it changed. Atomic: compared and removed in one step. Costs O(log n).

if kept_answer then return kept_answer end

read_states({ARGV[5]})
local state = states[ARGV[5]]
local entry = state.entry
if not entry or int(entry.q) ~= ARGV[6] or (state.record or '') ~= ARGV[7] then return 0 end
put(state, nil)
store()
return keep(1)

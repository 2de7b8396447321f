-- uses prelude packed records rules tally lanes limits wake places
-- Take a key from its owner, as it was listed: requeue it or give it up.
-- ARGV[5] key  [6] token  [7] lease expiry as listed  [8] verb: d + error = dead-letter, r + how, see places.lua = requeue
-- Returns 1, or 0 when the lease was renewed, changed hands or was settled.
-- Atomic: a renewal comes before or after, never between the check and the change. Costs O(log n).

if kept_answer then return kept_answer end

local key, verb = ARGV[5], ARGV[8]
if (call('ZSCORE', LEASES, key) or '0') ~= ARGV[7] then return 0 end
read_states({key})
local state = states[key]
if not is_in_progress(state) or token_of(state.running) ~= ARGV[6] then return 0 end

local entry = end_attempt(state)
if string.sub(verb, 1, 1) == 'd' then
  give_up(state, entry, string.sub(verb, 2))
else
  requeue(state, entry, string.sub(verb, 2))
end
store()
wake()
return keep(1)

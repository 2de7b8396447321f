-- uses prelude packed lanes
-- Prolong leases whose tokens still own their keys.
-- ARGV[5] lease in microseconds  [6...] key, token
-- Returns one character each: 1 = held, 0 = lost; then a space, and when the queue was made, if that is known. Atomic: recovery comes before or after, never between the check and
-- the new expiry. Costs O(log n) a key.

local keys = {}
for i = 6, #ARGV, 2 do
  keys[#keys + 1] = ARGV[i]
end
local running = call('HMGET', RUNNING, unpack(keys))
local held, leases = {}, {}
for i, key in ipairs(keys) do
  local is_ours = running[i] and token_of(running[i]) == ARGV[5 + 2 * i]
  held[i] = is_ours and '1' or '0'
  if is_ours then append(leases, 1, steady + tonumber(ARGV[5]), key) end
end
if leases[1] then
  admit()
  bulk('ZADD', LEASES, leases[1], 2)
end
return table.concat(held) .. ' ' .. (stored[4] or '')

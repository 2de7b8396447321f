-- uses prelude packed tally limits wake start_next
-- Make keys eligible whose time has come, then start keys in order within all limits; orphans come first, see below.
-- ARGV: see parts/start_next.lua
-- Returns: 1 = ask again for the rest, 0 = done; wall time; recovered orphans (none here); started keys: key and packed
-- entry as it was while queued, the number at the end of the token counting from 1 (nil = not ours any more); orphans,
-- key and attempts: if there are any, none was started, and recover.lua is to be asked, with a wait for each; keys that
-- were set aside, since their record cannot be read.
-- Atomic: what is in progress is counted and added to in one step, so that the limit holds however many ask at once,
-- and the order of the keys is that of the queue at one moment. Costs O(log n) a key started or promoted; neither the
-- backlog nor twins are looked through.

if kept_answer then return rebuild(kept_answer) end

forget_waiter()
if OFFERED_BY then call('DEL', OFFER .. OFFERED_BY) end
local lapsed = lapsed_keys()
if #lapsed == 0 and call('EXISTS', RECORDS, DELAYED) == 0 then return lease({}) end

-- What records take is defined only where there may be some: to define it costs as much as to start three keys.
-- uses records lanes recorded

if #lapsed == 0 then return lease({}, promote, with_records) end

local orphans = {}
for _, key in ipairs(lapsed) do
  local running = call('HGET', RUNNING, key)
  if is_running_readable(running) then
    local _, record = unpack_running(running)
    append(orphans, 1, key, attempts_at(record, 1) + 1)
  else
    set_aside_running(key, running)
  end
end
write_counts()
if not orphans[1] then return answer(true, {}, {}, {}) end
return {1, wall, {}, {}, orphans[1], set_aside_now}

-- Where keys are. A script reads the state of all keys it touches in bulk, changes it by the rules, and `store` writes
-- the difference in bulk: a handful of commands however many keys, which is what makes a batch cheap.

local states, touched = {}, {}   -- by key, and in the order in which they were read

local function place_read(state, record, plain)
  if record and not is_readable(record) then
    set_aside_queued(state.key, record)
    record, plain = nil, nil
  end
  if record then
    state.entry = unpack_entry(record)
    state.record = record
    if state.running then
      state.was = 'twin'
    elseif state.entry.n > 0 and call('ZSCORE', DELAYED, state.key) then
      state.was = 'delayed'
    else
      state.was = 'ready'
    end
  elseif plain then
    state.entry = plain_entry(tonumber(plain))
    state.was = 'ready'
  end
  state.before = state.entry
end

-- The state of one key from what was read of it.
local function state_of(key, running, record, plain)
  local state = states[key]
  if not state then
    state = {key = key, running = running}
    place_read(state, record, plain)
    states[key] = state
    touched[#touched + 1] = state
  end
  return state
end

local function read_states(keys)
  local running = call('HMGET', RUNNING, unpack(keys))
  local records = call('HMGET', RECORDS, unpack(keys))
  local plain = call('ZMSCORE', LANE .. '0', unpack(keys))
  for i, key in ipairs(keys) do
    state_of(key, running[i], records[i], plain[i])
  end
end

-- Queue `entry` (or nothing) for this key from now on.
local function put(state, entry)
  if not (entry and state.entry and same_entry(entry, state.entry)) then
    state.entry = entry
    state.changed = true
  end
end

-- Whether this key is in progress, in a record that can be read; one that cannot is set aside.
local function is_in_progress(state)
  if not state.running or is_running_readable(state.running) then return state.running end
  set_aside_running(state.key, state.running)
  write_counts()
  state.running = false
  return false
end

-- The attempt of this key is over; returns its entry as it was in progress.
local function end_attempt(state)
  local owner, record = unpack_running(state.running)
  local entry = started(unpack_entry(record))
  state.running = false
  state.ended = true
  state.changed = true
  count_owner(owner, -1)
  count_attempts(entry.a, -1)
  return entry, owner
end

local function give_up(state, entry, error)
  state.letter = pack_dead(entry, error)
  if state.entry then put(state, spared(state.entry)) end
end

-- `how`: see `requeued`, in one text: the letter, the microseconds, a space, and the error
local function requeue(state, entry, how)
  local letter, delay, error = string.match(how, '^(.)(%d+) ?(.*)$')
  local back = requeued(entry, letter, tonumber(delay), error)
  put(state, state.entry and merge_into_twin(state.entry, back) or back)
end

local function place_of(state)
  if not state.entry then return nil end
  if state.running then return 'twin' end
  return state.entry.n > wall and 'delayed' or 'ready'
end

local function leave_place(state, place, writes)
  local before, after = state.before, state.entry
  if state.was == 'ready' then
    counts.ready = counts.ready - 1
    if place ~= 'ready' or before.p ~= after.p then append(writes.leave, int(before.p), state.key) end
  elseif state.was == 'delayed' and place ~= 'delayed' then
    append(writes, 'undelay', state.key)
  elseif state.was == 'twin' then
    counts.twins = counts.twins - 1
  end
end

local function enter_place(state, place, writes)
  local entry = state.entry
  if place == 'ready' then
    counts.ready = counts.ready + 1
    append(writes.enter, int(entry.p), entry.q, state.key)
  elseif place == 'delayed' then
    delayed_from = math.min(delayed_from, entry.n)
    append(writes, 'delay', entry.n, state.key)
  else
    counts.twins = counts.twins + 1
  end
end

local function plan_write(state, writes)
  local place = place_of(state)
  if state.before then
    leave_place(state, place, writes)
    count_attempts(state.before.a, -1)
  end
  if place then
    enter_place(state, place, writes)
    count_attempts(state.entry.a, 1)
  end
  if place and not (place == 'ready' and is_plain(state.entry)) then
    append(writes, 'record', state.key, pack_entry(state.entry))
  elseif state.record then
    append(writes, 'unrecord', state.key)
  end
end

local function plan_writes()
  local writes = {enter = {}, leave = {}}
  for _, state in ipairs(touched) do
    if state.changed then plan_write(state, writes) end
    if state.ended then append(writes, 'end', state.key) end
    if state.letter then
      append(writes, 'letter', state.key, state.letter)
      append(writes, 'failed', wall, state.key)
    end
    if state.unletter then append(writes, 'unletter', state.key) end
  end
  return writes
end

-- Deletions come first: they are never refused, so that a full Redis can still be drained; a new key, of which nothing
-- is deleted, is refused as a whole.
local function delete(writes)
  if writes['end'] then
    bulk('HDEL', RUNNING, writes['end'])
    bulk('ZREM', LEASES, writes['end'])
  end
  if writes.unletter then
    bulk('HDEL', DEAD, writes.unletter)
    bulk('ZREM', FAILED, writes.unletter)
  end
  if writes.undelay then bulk('ZREM', DELAYED, writes.undelay) end
  for priority, keys in pairs(writes.leave) do
    bulk('ZREM', LANE .. priority, keys)
    forget_empty_lane(priority)
  end
  if writes.unrecord then bulk('HDEL', RECORDS, writes.unrecord) end
end

local function store()
  local writes = plan_writes()
  delete(writes)
  if writes.record then bulk('HSET', RECORDS, writes.record, 2) end
  for priority, pairs_ in pairs(writes.enter) do fill_lane(priority, pairs_) end
  if writes.delay then bulk('ZADD', DELAYED, writes.delay, 2) end
  if writes.letter then
    bulk('HSET', DEAD, writes.letter, 2)
    bulk('ZADD', FAILED, writes.failed, 2)
  end
  write_counts()
end

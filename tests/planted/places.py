"""Bugs in the places: where keys lie, and who may move them. One edit, or a few, for each backend."""

from __future__ import annotations

from tests.planted.planting import Bug, Edit

MEMORY = "workqueue.backends.memory.store:MemoryStore."
HEAPS = "workqueue.backends.memory.backend:MemoryQueue."
SQL = "workqueue.backends.sqlite.store:"
SQL_LEASE = "workqueue.backends.sqlite.leasing:"
SQL_READS = "workqueue.backends.sqlite.reads:"
GCS = "workqueue.backends.gcs.backend:GCSQueue."
MOVES = "workqueue.backends.gcs.moves:Moves."
OBJECTS = "workqueue.backends.gcs.api.objects:Objects."
LISTING = "workqueue.backends.gcs.listing.listing:Listing."
KEPT = "workqueue.backends.gcs.listing.kept:"
PACKED = "workqueue.backends.gcs.listing.packed:"
LEASING = "workqueue.backends.gcs.leasing:_Step."
RECORD = "workqueue.record:"
GENERIC = "workqueue.fallbacks:"
READY = "workqueue.backends.memory.ready:"


def bug(name: str, caught_by: str, *edits: tuple[str, Edit]) -> Bug:
    families = dict.fromkeys(family for family, _ in edits)
    return Bug(name, caught_by, {family: [edit for f, edit in edits if f == family] for family in families})


def python(where: str, old: str, new: str) -> tuple[str, Edit]:
    """In what memory, SQLite and GCS share."""
    return "python", Edit(where, old, new)


def memory(where: str, old: str, new: str) -> tuple[str, Edit]:
    return "memory", Edit(where, old, new)


def sqlite(where: str, old: str, new: str) -> tuple[str, Edit]:
    return "sqlite", Edit(where, old, new)


def redis(script: str, old: str, new: str) -> tuple[str, Edit]:
    return "redis", Edit(f"lua:{script}", old, new)


def gcs(where: str, old: str, new: str) -> tuple[str, Edit]:
    return "gcs", Edit(where, old, new)


def record(where: str, old: str, new: str) -> tuple[str, Edit]:
    return "three-verbs", Edit(where, old, new)


LEASES = [
    bug(
        "the fence is down: anybody may settle",
        "leases: an owner whose key is another owners changes nothing [complete]",
        memory(MEMORY + "end_lease", "self.in_progress.get(key) is not lease", "key not in self.in_progress"),
        sqlite(SQL + "Store.held", "return set(", "return set(tokens) or set("),
        redis("settle", "and token_of(running[i]) == ARGV", "and 'x' ~= ARGV"),
        record(RECORD + "RecordHandles._settle", " and record.held.token == owned.lease.token", ""),
        gcs(OBJECTS + "delete", "?{if_match(pin)}", ""),
    ),
    bug(
        "a lease that is another's is renewed",
        "leases: an owner whose key was taken is told by its next renewal",
        memory(MEMORY + "_renew_one", "held is None or held is not lease", "held is None"),
        sqlite(SQL_LEASE + "renew", "return held", "return set(tokens)"),
        redis("renew", "running[i] and token_of(running[i]) == ", "running[i] and 'x' ~= "),
        record(RECORD + "renewing", "held is None or held.token != lease.token", "held is None"),
        gcs(OBJECTS + "patch", "{if_match(pin)}&", ""),
    ),
    bug(
        "a renewal prolongs a lease by half of it only",
        "leases: a renewal lasts as long as a new lease",
        memory(HEAPS + "_renew", "+ self._lease_us", "+ self._lease_us // 2"),
        sqlite(SQL_LEASE + "renew", "store.identity.lease_us", "store.identity.lease_us // 2"),
        redis("renew", "steady + tonumber(ARGV[5])", "steady + tonumber(ARGV[5]) / 2"),
        record("examples.three_verbs:ThreeVerbs._renew", "DEFAULT_LEASE.duration_us", "DEFAULT_LEASE.duration_us // 2"),
        gcs(
            "workqueue.backends.gcs.renewal:Renewal._renew_all",
            "lease_stamp(self._time.now_us() + self._lease_us)",
            "lease_stamp(self._time.now_us() + self._lease_us // 2)",
        ),
    ),
    bug(
        "a lease is stamped in whole seconds, rounded down",
        "leases: a lease lasts as long as it says whatever the fraction of its second",
        memory(HEAPS + "_start", "sent_us + self._lease_us", "(sent_us + self._lease_us) // 10**6 * 10**6"),
        sqlite(SQL_LEASE + "_start", "now_us + who.lease_us", "(now_us + who.lease_us) // 10**6 * 10**6"),
        record(
            RECORD + "RecordHandles.start", "sent_us + self._lease_us", "(sent_us + self._lease_us) // 10**6 * 10**6"
        ),
    ),
    bug(
        "a settled key stays in progress and leaks its slot",
        "limits: every settle frees a slot [complete]",
        memory(MEMORY + "end_lease", "del self.in_progress[key]", "pass"),
        sqlite(SQL + "_END", "WHERE", "WHERE FALSE AND"),
        redis("settle", "if #ended > 0 then", "if false then"),
        record(RECORD + "RecordHandles._settle", "replace(record, held=None)", "record"),
        gcs(MOVES + "complete", "await self._objects.delete(source)", "Deleted.DONE"),
    ),
    bug(
        "a started key stays queued and is started twice",
        "attempts: a completed key starts over",
        memory(MEMORY + "start", "del self.queued[key]", "pass"),
        sqlite(SQL_LEASE + "_STARTED", "WHERE", "WHERE FALSE AND"),
        redis("", "'ZPOPMIN', LANE .. priority, most)", "'ZRANGE', LANE .. priority, 0, most - 1, 'WITHSCORES')"),
        record(RECORD + "RecordHandles.start", "queued=None, held=held", "held=held"),
        gcs(MOVES + "start", "await self._objects.delete(source)", "pass"),
    ),
    bug(  # SQLite cannot: a unique index holds one row for each key in progress
        "a twin can be started while its key is in progress",
        "handles: a twin is not started",
        memory(MEMORY + "startable", "and key not in self.in_progress ", ""),
        redis("start", "state.was == 'ready' and", "state.was and"),
        record(RECORD + "_eligible", " and record.held is None", ""),
        gcs(MOVES + "start", "(source, target, metadata)", "(source, target, metadata, fresh=False)"),
    ),
    bug(
        "a key that changed since it was listed is started as it was",
        "handles: a key that changed since it was listed is not started",
        memory(MEMORY + "startable", "self.queued.get(key) is entry", "key in self.queued"),
        sqlite(SQL_LEASE + "_ONE", "stamp = ?", "? <> 0"),
        redis("start", "== ARGV[9] and (state.record or '') == ARGV[10]", "== ARGV[9]"),
        record(RECORD + "RecordHandles.start", "record.queued == queued.entry and ", ""),
        gcs(MOVES + "start", "*candidate.version", "candidate.stored.generation"),
    ),
    bug(
        "a key is taken from an owner who renewed its lease since",
        "handles: a key whose lease was renewed since it was observed is left alone [requeue]",
        memory(MEMORY + "take", " or held.expires_us != expires_us", ""),
        sqlite(SQL_LEASE + "_OBSERVED", "expires_us = ?", "? <> 0"),
        redis("take", "if (call('ZSCORE', LEASES, key) or '0') ~= ARGV[7] then return 0 end", ""),
        record(RECORD + "RecordHandles._take", "record.held == observed.version", "record.held"),
        gcs(
            "workqueue.backends.gcs.handles:Handles.requeue_observed",
            "Returning(seen.stored.pin",
            "Returning(Pin(seen.stored.name, seen.stored.generation)",
        ),
    ),
    bug(
        "orphans are never recovered",
        "orphans: an orphan is queued again at once after its first attempt",
        memory(MEMORY + "lapsed", "if now_us < self._lapse_check_us:", "if True:"),
        sqlite(SQL_LEASE + "lease", 'if row["orphans"]:', "if False:"),
        redis("", "'-inf', steady, 'LIMIT', 0, ORPHANS_AT_ONCE", "'-inf', 0, 'LIMIT', 0, 1"),
        record(GENERIC + "_Completed.lease", "if observed.orphaned", "if False"),
        gcs("workqueue.backends.gcs.listing.running:Running.orphans", "if seen.expires_us <= now_us", "if False"),
    ),
]

TWINS = [
    bug(
        "a key enqueued while in progress is forgotten",
        "rerun: a key queued while in progress runs once more [complete]",
        memory(MEMORY + "enqueue", "existing = ", "if key in self.in_progress: return incoming, True\n    existing = "),
        sqlite(SQL + "Store.put", "_merge(found, arrival)", "arrival.entry.key in running or _merge(found, arrival)"),
        redis("enqueue", "  enqueue(i, keys[i], ", "  local _ = running[i] or enqueue(i, keys[i], "),
        record(RECORD + "enqueuing", "queued=queued)", "queued=None if record.held else queued)"),
        gcs(GCS + "_enqueue", "    now_us =", "    if key in self._bucket.listing.running.keys: return\n    now_us ="),
    ),
    bug(
        "a completed key takes its twin along",
        "rerun: a key queued while in progress runs once more [complete]",
        memory(HEAPS + "_complete", "dead.pop(owned.key, None)", "queued.pop(owned.key, None)"),
        sqlite(SQL + "_FREE_TWINS", "SET place = CASE", "SET place = 1, not_before_us = 2 * :now_us + CASE"),
        redis("settle", "elseif letter then", "elseif true then put(state, nil)"),
        record(RECORD + "RecordHandles.complete", "replace(record, dead=None)", "replace(record, queued=None)"),
        gcs(
            MOVES + "complete",
            "    deleted =",
            "    twin = await self._objects.read(self._queued(source.name[len(self._place.in_progress) :]))\n"
            "    twin and await self._objects.delete(twin.pin)\n    deleted =",
        ),
    ),
    bug(
        "a dead-lettered key takes its twin along",
        "dead letters: dead lettering leaves a twin with a new budget",
        memory(MEMORY + "dead_letter", "self._replace(twin, spared(twin))", "self._take(twin)"),
        sqlite(
            SQL + "Store._bury",
            "self._write(twins, running)",
            "[self.connection.execute('DELETE FROM queued WHERE id = ?', (twin.row_id,)) for twin in twins.values()]",
        ),
        redis("", "put(state, spared(state.entry))", "put(state, nil)"),
        record(RECORD + "RecordHandles._given_up", "if record.queued is not None", "if False"),
        gcs(
            MOVES + "_spare_twin",
            "if twin is None or",
            "twin and await self._objects.delete(twin.pin)\n        if True or",
        ),
    ),
]

LETTERS = [
    bug(
        "a completed key leaves its dead letter",
        "dead letters: completing a key deletes its dead letter",
        memory(HEAPS + "_complete", "self._store.dead.pop(owned.key, None)", "pass"),
        sqlite(SQL + "_FORGET_LETTERS", "WHERE", "WHERE FALSE AND"),
        redis("settle", "state.unletter = true", "state.unletter = false"),
        record(RECORD + "RecordHandles.complete", "replace(record, dead=None)", "record"),
        gcs(MOVES + "complete", "if letter and deleted.by_us:", "if False:"),
    ),
    bug(
        "a re-driven key leaves its dead letter",
        "redrive: a redriven key is queued as new",
        memory(MEMORY + "redrive", "not self.drop_dead(letter)", "self.dead.get(letter.entry.key) is not letter"),
        sqlite(SQL + "Store.redrive", "self.drop_dead(row_id, stamp)", "pass"),
        redis("dead_verb", "state.unletter = true", "state.unletter = ARGV[7] == 'drop'"),
        record(RECORD + "RecordHandles.redrive", ", dead=None)", ")"),
        gcs(MOVES + "redrive", " if (await self._objects.delete(source)).by_us else None", ""),
    ),
    bug(
        "a dead letter that was replaced can be re-driven from an old listing",
        "redrive: a dead letter that was replaced is not redriven",
        memory(MEMORY + "drop_dead", "is not letter", "is None"),
        sqlite(SQL + "_LETTER", "stamp = ?", "? <> 0"),
        redis("dead_verb", "if call('HGET', DEAD, key) ~= letter", "if call('HEXISTS', DEAD, key) == 0"),
        record(RECORD + "RecordHandles.redrive", "record.dead != dead.letter", "record.dead is None"),
        gcs(OBJECTS + "copy", "{if_source_match(source)}&", ""),
    ),
    bug(
        "a dead letter that was replaced can be dropped from an old listing",
        "drops: a dead letter that was replaced is not dropped",
        memory(MEMORY + "drop_dead", "is not letter", "is None"),
        sqlite(SQL + "_DROP_DEAD", "stamp = ?", "? <> 0"),
        redis("dead_verb", "if call('HGET', DEAD, key) ~= letter", "if call('HEXISTS', DEAD, key) == 0"),
        record(RECORD + "RecordHandles.drop_dead", "record.dead == dead.letter", "record.dead"),
        gcs(OBJECTS + "delete", "?{if_match(pin)}", ""),
    ),
    bug(
        "a key that changed since it was listed is dropped with the news",
        "drops: a key that changed since it was listed is not dropped",
        memory(
            MEMORY + "drop_queued",
            "if self.queued.get(entry.key) is not entry:\n        return False",
            "entry = self.queued[entry.key]",
        ),
        sqlite(SQL + "_DROP_QUEUED", "stamp = ?", "? <> 0"),
        redis("drop", " or (state.record or '') ~= ARGV[7]", ""),
        record(RECORD + "RecordHandles.drop_queued", "record.queued == queued.entry", "record.queued"),
        gcs(OBJECTS + "delete", "?{if_match(pin)}", ""),
    ),
]

ORDER = [
    bug(
        "a not-before is not waited for",
        "not before: a key is not started before its time",
        memory(MEMORY + "_make_eligible", "if entry.not_before_us and", "if False and"),
        sqlite(SQL + "Store._values", "DELAYED if entry.not_before_us > now_us else READY", "READY"),
        redis("", "return state.entry.n > wall and 'delayed' or 'ready'", "return 'ready'"),
        record(RECORD + "_eligible", "record.queued.not_before_us <= now_us", "now_us > 0"),
        gcs(KEPT + "Kept._startable", "if entry.not_before_us > now_us:", "if False:"),
    ),
    bug(  # a bucket is listed anew before long, so there it is only late
        "a key that came due is never looked at again",
        "not before: a key is not started before its time",
        memory(MEMORY + "promote", "while due and due[0][0] <= now_us:", "while False:"),
        sqlite(SQL_LEASE + "lease", 'if row["due"] and promote(store)', "if False"),
        redis("", "if #due == 0 then return false end", "if true then return false end"),
        record(RECORD + "_eligible", "record.queued.not_before_us <= now_us", "record.queued.not_before_us == 0"),
    ),
    bug(
        "the lowest priority starts first",
        "ordering: a higher priority starts first",
        memory(READY + "ReadyIndex._file", "self._priorities, -entry", "self._priorities, entry"),
        memory(READY + "ReadyIndex.peek", "self._lanes[-self._priorities[0]]", "self._lanes[self._priorities[0]]"),
        memory(READY + "ReadyIndex.take", "self._lanes[-self._priorities[0]]", "self._lanes[self._priorities[0]]"),
        memory(READY + "ReadyIndex._forget_first_lane", "[-heapq.", "[heapq."),
        sqlite(SQL_LEASE + "_NEXT", "priority DESC", "priority"),
        redis(
            "",
            "call('ZADD', LANES, -tonumber(priority), priority)",
            "call('ZADD', LANES, tonumber(priority), priority)",
        ),
        record(RECORD + "RecordHandles.snapshot", "-entry.priority", "entry.priority"),
        gcs(PACKED + "pack", "_BIAS - entry.priority", "_BIAS + entry.priority"),
    ),
    bug(
        "keys of one priority start by name, whoever waited longest",
        "ordering: of one priority the longest queued starts first",
        memory(READY + "_Lane.add", "(entry.queued_us, entry.key)", "(0, entry.key)"),
        memory(READY + "_place", "entry.queued_us, entry.key", "0, entry.key"),
        sqlite(SQL_LEASE + "_NEXT", "priority DESC, queued_us, key", "priority DESC, key"),
        redis(
            "",
            "append(writes.enter, int(entry.p), entry.q, state.key)",
            "append(writes.enter, int(entry.p), 0, state.key)",
        ),
        record(RECORD + "RecordHandles.snapshot", "entry.queued_us, entry.key", "entry.key"),
        gcs(PACKED + "pack", "_BIAS - entry.priority, entry.queued_us", "_BIAS - entry.priority, 0"),
    ),
    bug(
        "twins take the place of eligible keys in a listing",
        "ordering: twins do not count towards the limit of a listing",
        memory(MEMORY + "_put", "if key in self.in_progress:", "if False:"),
        sqlite(SQL + "Store._values", "TWIN if entry.key in running else ", ""),
        redis("", "if state.running then return 'twin' end", ""),
        record(RECORD + "_eligible", " and record.held is None", ""),
        gcs(KEPT + "Kept._startable", "if candidate.key in running:", "if False:"),
        gcs(LISTING + "take", "if candidate.key in self.running.taken:", "if False:"),
    ),
]

PLACE_BUGS = [*LEASES, *TWINS, *LETTERS, *ORDER]

"""Bugs in the rules: what an entry looks like after each step, in `rules.py` and in its port, `rules.lua`."""

from __future__ import annotations

from tests.planted.planting import Bug, Edit

ENTRY = "workqueue.rules:"
Change = tuple[str, str]


def rule(name: str, caught_by: str, function: str, python: Change, lua: Change) -> Bug:
    return Bug(name, caught_by, {"python": (Edit(function, *python),), "lua": (Edit("lua:", *lua),)})


def everywhere(name: str, caught_by: str, where: str, old: str, new: str) -> Bug:
    return Bug(name, caught_by, {"all": (Edit(where, old, new),)})


MERGE = [
    rule(
        "an enqueue undercuts a floor",
        "floors: an enqueue follows the floor table [a floor meets no floor, earlier]",
        ENTRY + "_merge_not_before",
        ("return existing.not_before_us, True", "return min(existing.not_before_us, incoming.not_before_us), True"),
        ("if existing.floor then return existing.n, true", "if existing.floor then return incoming.n, true"),
    ),
    rule(
        "a floor that meets none is no floor any more",
        "floors: an enqueue follows the floor table [no floor meets a floor, earlier]",
        ENTRY + "_merge_not_before",
        ("return incoming.not_before_us, True", "return incoming.not_before_us, False"),
        ("return incoming.n, true", "return incoming.n, false"),
    ),
    rule(
        "of two floors the earlier holds",
        "floors: a requeue into a twin follows the floor table [a floor meets a floor, later]",
        ENTRY + "_merge_not_before",
        ("return max(", "return min("),
        ("return math.max(existing.n, incoming.n), true", "return math.min(existing.n, incoming.n), true"),
    ),
    rule(
        "without floors the later not-before holds",
        "floors: an enqueue follows the floor table [no floor meets no floor, earlier]",
        ENTRY + "_merge_not_before",
        ("return min(", "return max("),
        ("return math.min(existing.n, incoming.n), false", "return math.max(existing.n, incoming.n), false"),
    ),
    rule(
        "an event refills the attempts of a failing key",
        "attempts: an event does not refill the budget of a failing key",
        ENTRY + "_merge",
        ("max(existing.attempts, incoming.attempts)", "incoming.attempts"),
        ("a = math.max(existing.a, incoming.a)", "a = incoming.a"),
    ),
    rule(
        "the newer priority wins over a higher one",
        "merge: an enqueue of a queued key keeps the higher priority [the queued one]",
        ENTRY + "_merge",
        ("max(existing.priority, incoming.priority)", "incoming.priority"),
        ("p = math.max(existing.p, incoming.p)", "p = incoming.p"),
    ),
    rule(
        "an enqueue sends a queued key to the back",
        "merge: an enqueue of a queued key keeps its place",
        ENTRY + "merge_incoming",
        ("queued_us=existing.queued_us", "queued_us=incoming.queued_us"),
        ("merge_rest(incoming.rest, existing.rest), existing.q)", "merge_rest(incoming.rest, existing.rest), wall)"),
    ),
    rule(
        "an older payload outlives a newer one",
        "payloads: an enqueue brings the newer payload",
        ENTRY + "_merge",
        (
            "newer.payload if newer.payload is not None else older.payload",
            "older.payload if older.payload is not None else newer.payload",
        ),
        (
            "if payload == '' then payload = string.sub(older, old_at + old_size) end",
            "if #older >= old_at + old_size then payload = string.sub(older, old_at + old_size) end",
        ),
    ),
    rule(
        "newer meta replaces older meta as a whole",
        "payloads: an enqueue brings newer meta name by name",
        ENTRY + "_merge",
        ("{**older.meta, **newer.meta} if older.meta or newer.meta else NO_META", "newer.meta or older.meta"),
        ("unpack_meta(string.sub(older, old_at, old_at + old_size - 1), names, values)", ""),
    ),
    rule(
        "a requeue overwrites what was queued meanwhile",
        "payloads: a key that returns is older than its twin [requeue]",
        ENTRY + "merge_into_twin",
        ("newer=twin, older=returning", "newer=returning, older=twin"),
        ("merge_rest(twin.rest, returning.rest)", "merge_rest(returning.rest, twin.rest)"),
    ),
    rule(
        "a release into a twin loses its place",
        "merge: a release into a twin takes the earlier place",
        ENTRY + "merge_into_twin",
        ("min(twin.queued_us, returning.queued_us) if release else twin.queued_us", "twin.queued_us"),
        ("release and math.min(twin.q, returning.q) or twin.q", "twin.q"),
    ),
    rule(
        "the story of a key begins with its last enqueue",
        "merge: the story of a key begins with its first enqueue",
        ENTRY + "_merge",
        ("min(existing.first_queued_us, incoming.first_queued_us)", "incoming.first_queued_us"),
        ("f = math.min(existing.f, incoming.f)", "f = incoming.f"),
    ),
]

ATTEMPTS = [
    rule(
        "a release is counted as an attempt",
        "release: a release is no attempt",
        ENTRY + "released",
        ("entry.attempts - 1", "entry.attempts"),
        ("a = e.a - 1", "a = e.a"),
    ),
    rule(
        "a start is not counted as an attempt",
        "attempts: every start after a bare requeue is one attempt more",
        ENTRY + "started",
        ("e.attempts + 1", "e.attempts"),
        ("a = e.a + 1", "a = e.a"),
    ),
    rule(
        "a requeue with a delay keeps the attempts",
        "attempts: a requeue with a delay starts the attempts over",
        ENTRY + "requeued",
        ("attempts = 0 if how.delay else e.attempts", "attempts = e.attempts"),
        ("a = again and 0 or e.a", "a = e.a"),
    ),
    rule(
        "a failure starts the attempts over, so that no key is ever given up",
        "attempts: a requeue with a backoff keeps the attempts and waits [zero]",
        ENTRY + "requeued",
        ("attempts = 0 if how.delay else e.attempts", "attempts = 0"),
        ("a = again and 0 or e.a", "a = 0"),
    ),
    rule(
        "a bare requeue of a high priority starves the others",
        "attempts: a bare requeue at a priority above zero waits longer each time",
        "workqueue.backoff:bare_requeue_delay",
        ("if priority > 0", "if priority > 2**60"),
        ("return e.p > 0 and", "return false and"),
    ),
    rule(
        "the wait of a bare requeue grows without end",
        "attempts: a bare requeue at a priority above zero waits longer each time",
        "workqueue.backoff:bare_requeue_delay",
        ("min(BACKOFF_UNIT * attempts, BACKOFF_CAP)", "BACKOFF_UNIT * attempts"),
        ("math.min(e.a * BACKOFF_UNIT_US, BACKOFF_CAP_US)", "e.a * BACKOFF_UNIT_US"),
    ),
    rule(
        "a bare requeue goes back to the front",
        "attempts: a bare requeue goes to the back of the queue",
        ENTRY + "requeued",
        ("attempts, now_us, e.first", "attempts, e.queued_us, e.first"),
        ("a = again and 0 or e.a, q = wall", "a = again and 0 or e.a, q = e.q"),
    ),
    rule(
        "a requeue forgets the floor it was asked for",
        "floors: a requeue with a floor holds against events",
        ENTRY + "requeued",
        ("not_before_us, how.floor,", "not_before_us, False,"),
        ("floor = how == 'f'", "floor = false"),
    ),
    rule(
        "a backoff is not waited for",
        "attempts: a requeue with a backoff keeps the attempts and waits [zero]",
        ENTRY + "requeued",
        ("how.delay or how.backoff", "how.delay"),
        ("local n = delay > 0 and", "local n = how ~= 'o' and delay > 0 and"),
    ),
]

REDRIVE = [
    rule(
        "a re-drive keeps the spent attempts",
        "redrive: a redriven key is queued as new",
        ENTRY + "redriven",
        ("attempts=0, queued_us=now_us", "queued_us=now_us"),
        ("local back = {p = e.p, a = 0", "local back = {p = e.p, a = e.a"),
    ),
    rule(
        "a re-drive does not refill a key that is queued already",
        "redrive: a redrive refills the budget of a queued key",
        ENTRY + "redriven",
        ("spared(merge_into_twin(queued, back))", "merge_into_twin(queued, back)"),
        ("return spared(merge_into_twin(queued, back))", "return merge_into_twin(queued, back)"),
    ),
    rule(
        "a re-drive brings the dead payload back over a newer one",
        "redrive: a redrive of a queued key merges",
        ENTRY + "redriven",
        ("merge_into_twin(queued, back)", "merge_incoming(queued, back)"),
        ("merge_into_twin(queued, back)", "merge_incoming(queued, back)"),
    ),
    rule(
        "a re-driven key goes back to the front",
        "redrive: a redriven key goes to the back",
        ENTRY + "redriven",
        ("queued_us=now_us, first", "first"),
        ("local back = {p = e.p, a = 0, q = wall", "local back = {p = e.p, a = 0, q = e.q"),
    ),
]

# These are in Python for every backend, Redis included.
SHARED = [
    everywhere(
        "control characters are accepted in keys",
        "keys: a forbidden key is refused and nothing is stored [DEL]",
        "workqueue.key:validate_key",
        "if found:",
        "if False:",
    ),
    everywhere(
        "keys of any length are accepted",
        "keys: a forbidden key is refused and nothing is stored [1001 bytes]",
        "workqueue.key:validate_key",
        "if not 1 <= size <= MAX_KEY_BYTES",
        "if not 1 <= size",
    ),
    everywhere(
        "the length of a key is measured in characters",
        "keys: a forbidden key is refused and nothing is stored [1001 bytes in 501 characters]",
        "workqueue.key:validate_key",
        "len(key.encode())",
        "len(key)",
    ),
    everywhere(
        "payloads of any size are accepted",
        "payloads: a payload that is too large is refused and nothing is stored",
        "workqueue.options:check_payload",
        "len(payload) > limit",
        "len(payload) > limit * 2",
    ),
    everywhere(
        "a requeue may have a delay of zero",
        "attempts: a requeue that makes no sense is refused and the key kept [a delay of zero]",
        "workqueue.rules:Requeue.__post_init__",
        "self.delay <= timedelta(0)",
        "self.delay < timedelta(0)",
    ),
    everywhere(
        "leases are judged by the wall clock",
        "leases: a wall clock that jumps does not end a lease",
        "workqueue.testing.clock:FakeClock.jump_wall",
        "self._wall_us += duration_us(duration)",
        "self._wall_us += duration_us(duration); self._steady_us += duration_us(duration)",
    ),
    everywhere(
        "leases are not renewed",
        "leases: a lease is renewed for as long as the attempt takes",
        "workqueue.lease:LeaseRenewer.tick",
        "if now_us >= self._due_us and self._held:",
        "if False:",
    ),
    everywhere(
        "an owner that was frozen too long is not told, and revives its lease",
        "leases: an owner that was frozen too long is told and changes nothing [complete]",
        "workqueue.lease:LeaseRenewer._expire",
        "if now_us >= lease.deadline_us",
        "if False",
    ),
    everywhere(
        "the lease of an abandoned key is renewed on",
        "orphans: an orphan is queued again at once after its first attempt",
        "workqueue.lease:LeaseRenewer.drop",
        "self._held.pop(lease, None)",
        "pass",
    ),
    everywhere(
        "the owner of a key that was taken is not told by its renewal",
        "leases: an owner whose key was taken is told by its next renewal",
        "workqueue.lease:LeaseRenewer._renew_all",
        "if lease in self._held:",
        "if False:",
    ),
    everywhere(
        "the backoff hook is not asked",
        "orphans: the hook decides how long an orphan waits",
        "workqueue.backoff:backoff_for",
        "hook(attempts) if hook is not None else None",
        "None",
    ),
    everywhere(
        "a hook without a positive answer means no wait at all",
        "orphans: a hook without a positive answer means the default [zero]",
        "workqueue.backoff:backoff_for",
        "exponential(attempts)",
        "timedelta(microseconds=1)",
    ),
    everywhere(
        "an orphan gets one attempt too many",
        "orphans: an orphan at max retry is dead lettered",
        "workqueue.orphan:orphan_wait",
        "max_retry <= attempts",
        "max_retry < attempts",
    ),
    everywhere(
        "a first death is held against the key",
        "orphans: an orphan is queued again at once after its first attempt",
        "workqueue.orphan:orphan_wait",
        ", first=timedelta(0)",
        "",
    ),
]

RULE_BUGS = [*MERGE, *ATTEMPTS, *REDRIVE, *SHARED]

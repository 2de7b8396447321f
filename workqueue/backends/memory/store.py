"""Stage 2: the keys of one memory queue and the steps between their places.

A key is in `queued`, in `in_progress`, in both (a twin), and perhaps in `dead`. A queued entry is in exactly one of:
`ready` (eligible), `_delayed` (its not-before is to come), or neither, while it is a twin.
"""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from itertools import count

from workqueue.backends.memory.ready import ReadyIndex
from workqueue.backends.waiters import Waiters
from workqueue.clock import Clock
from workqueue.handles import LeaseTimesSeen, state_of
from workqueue.interface import KeyState
from workqueue.lease import Lease, Lost
from workqueue.optional import Counts
from workqueue.options import Options
from workqueue.rules import (
    DeadLetter,
    Entry,
    Requeue,
    dead_lettered,
    enqueued,
    merge_incoming,
    merge_into_twin,
    redriven,
    released,
    requeued,
    spared,
    started,
)
from workqueue.throttle import Configuration, TokenBucket

__all__ = ["Held", "MemoryStore"]

_NEVER_US = 10**18
_SWEEP_AT = 1024


class Held(Lease):
    """One key in progress: its lease, its entry, and from and until when the store sees it held, in steady time.

    It is its own proof of ownership: whoever has it owns the key while `in_progress` maps the key to it.
    """

    __slots__ = ("began_us", "entry", "expires_us", "owner")

    def __init__(self, entry: Entry, owner: str, began_us: int, expires_us: int) -> None:
        self.key, self.token, self.lost = entry.key, "", Lost()  # as super().__init__, which takes twice as long
        self.entry = entry
        self.owner = owner
        self.began_us = began_us
        self.expires_us = expires_us

    def seen(self, clock: Clock) -> LeaseTimesSeen:
        """Its times on the wall clock, as that stands now."""
        steady_is_behind_us = clock.wall_us() - clock.steady_us()
        return LeaseTimesSeen(self.began_us + steady_is_behind_us, self.expires_us + steady_is_behind_us)


class MemoryStore:
    """All keys of one queue, shared by its peers; not thread-safe but for `renew`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.queued: dict[str, Entry] = {}
        self.in_progress: dict[str, Held] = {}
        self.dead: dict[str, DeadLetter] = {}
        self.ready = ReadyIndex(self.queued)
        self.waiters = Waiters(clock)
        self.configuration = Configuration()
        self._bucket = TokenBucket(0, 0)
        self._delayed: dict[str, Entry] = {}
        self._due: list[tuple[int, int, Entry]] = []  # heap of (not_before_us, number, entry), may hold stale ones
        self._numbers = count()
        self._twins = 0
        self._attempts: Counter[int] = Counter()  # queued entries by attempts, zero left out
        self._lapse_check_us = _NEVER_US  # no lease can have lapsed before this
        self._renewal = threading.Lock()

    # places

    def _put(self, entry: Entry) -> None:
        """Make `entry` the queued entry of its key."""
        key = entry.key
        self.queued[key] = entry
        if entry.attempts:
            self._attempts[entry.attempts] += 1
        if key in self.in_progress:
            self._twins += 1
        else:
            self._make_eligible(entry)

    def _make_eligible(self, entry: Entry) -> None:
        """File an entry that is no twin (any more) under ready or delayed."""
        if entry.not_before_us and entry.not_before_us > self._clock.wall_us():
            self._delay(entry)
        else:
            self.ready.add(entry)
        self.waiters.wake()

    def _delay(self, entry: Entry) -> None:
        self._delayed[entry.key] = entry
        if len(self._due) > max(_SWEEP_AT, 2 * len(self._delayed)):  # events for one delayed key leave a stale one each
            self._due = [item for item in self._due if self._delayed.get(item[2].key) is item[2]]
            heapq.heapify(self._due)
        heapq.heappush(self._due, (entry.not_before_us, next(self._numbers), entry))

    def _take(self, entry: Entry) -> None:
        """Remove the queued entry of a key from wherever it is."""
        key = entry.key
        del self.queued[key]
        if entry.attempts:
            self._forget_attempts(entry.attempts)
        if key in self.in_progress:
            self._twins -= 1
        elif self._delayed.pop(key, None) is None:
            self.ready.note_stale()

    def _forget_attempts(self, attempts: int) -> None:
        self._attempts[attempts] -= 1
        if not self._attempts[attempts]:
            del self._attempts[attempts]

    def _leave_in_progress(self, key: str) -> None:
        """The key is no longer in progress; its twin, if any, may start."""
        twin = self.queued.get(key)
        if twin is not None:
            self._twins -= 1
            self._make_eligible(twin)
        else:
            self.waiters.wake()  # a slot is free

    def promote(self, now_us: int) -> None:
        """File the delayed entries whose time has come under ready."""
        due = self._due
        while due and due[0][0] <= now_us:
            entry = heapq.heappop(due)[2]
            if self._delayed.get(entry.key) is entry:
                del self._delayed[entry.key]
                self.ready.add(entry)

    # steps

    def enqueue(self, key: str, options: Options, now_us: int) -> tuple[Entry, bool]:
        """Store an enqueue; returns the entry now stored and whether it was merged."""
        incoming = enqueued(key, options, now_us)
        existing = self.queued.get(key)
        if existing is None:
            self._put(incoming)
            return incoming, False
        return self._replace(existing, merge_incoming(existing, incoming)), True

    def _replace(self, existing: Entry, merged: Entry) -> Entry:
        if merged == existing:  # the common duplicate: nothing to file anew
            return existing
        self._take(existing)
        self._put(merged)
        return merged

    def startable(self, entry: Entry) -> bool:
        """Whether `entry` is still the queued entry of its key, and eligible."""
        key = entry.key
        return self.queued.get(key) is entry and key not in self.in_progress and key not in self._delayed

    def start(self, entries: Iterable[Entry], owner: str, began_us: int, expires_us: int) -> list[Held]:
        """Move entries that are neither delayed nor twins, and that `ready` gave up, to in progress."""
        begun = []
        for entry in entries:
            key = entry.key
            del self.queued[key]
            if entry.attempts:
                self._forget_attempts(entry.attempts)
            held = self.in_progress[key] = Held(started(entry), owner, began_us, expires_us)
            begun.append(held)
        if begun:
            self._lapse_check_us = min(expires_us, self._lapse_check_us)
        return begun

    def end_lease(self, lease: Lease) -> bool:
        """Take the key out of in progress if `lease` still owns it; the caller decides what becomes of its entry."""
        key = lease.key
        if self.in_progress.get(key) is not lease:
            return False
        del self.in_progress[key]
        self._leave_in_progress(key)
        return True

    def take(self, held: Held, expires_us: int) -> bool:
        """Take an observed key from its owner, if its lease is still the observed one."""
        with self._renewal:  # a renewal that waits for it finds the key gone
            if self.in_progress.get(held.key) is not held or held.expires_us != expires_us:
                return False
            del self.in_progress[held.key]
        self._leave_in_progress(held.key)
        return True

    def lapsed(self, now_us: int) -> list[tuple[Held, int]]:
        """Every orphan and the expiry it was judged by. Looks through the keys only when a lease may have lapsed."""
        if now_us < self._lapse_check_us:
            return []
        expiries = [(held, held.expires_us) for held in self.in_progress.values()]  # each read once: renewal goes on
        self._lapse_check_us = min((expires_us for _, expires_us in expiries), default=_NEVER_US)
        return [(held, expires_us) for held, expires_us in expiries if expires_us <= now_us]

    def renew(self, leases: Sequence[Lease], expires_us: int) -> Collection[Lease]:
        """Prolong the leases whose tokens still own their keys. Called from the renewer's thread."""
        with self._renewal:
            return [lease for lease in leases if self._renew_one(lease, expires_us)]

    def _renew_one(self, lease: Lease, expires_us: int) -> bool:
        held = self.in_progress.get(lease.key)
        if held is None or held is not lease:
            return False
        held.expires_us = expires_us
        return True

    def requeue(self, entry: Entry, how: Requeue, now_us: int) -> Entry:
        """Queue the entry of an ended attempt again; returns the entry now queued."""
        return self._return(requeued(entry, how, now_us), release=False)

    def release(self, entry: Entry) -> None:
        """Queue the entry of an ended attempt at its old place, the attempt unspent."""
        self._return(released(entry), release=True)

    def _return(self, entry: Entry, *, release: bool) -> Entry:
        twin = self.queued.get(entry.key)
        if twin is not None:
            return self._replace(twin, merge_into_twin(twin, entry, release=release))
        self._put(entry)
        return entry

    def dead_letter(self, entry: Entry, error: str, now_us: int) -> None:
        """Give the entry of an ended attempt up; a twin starts over with attempts 0."""
        self.dead[entry.key] = dead_lettered(entry, error, now_us)
        twin = self.queued.get(entry.key)
        if twin is not None:
            self._replace(twin, spared(twin))

    def redrive(self, letter: DeadLetter, now_us: int) -> bool:
        """Queue a dead-lettered key again and forget the letter."""
        if not self.drop_dead(letter):
            return False
        queued = self.queued.get(letter.entry.key)
        back = redriven(letter, queued, now_us)
        if queued is not None:
            self._replace(queued, back)
        else:
            self._put(back)
        return True

    def drop_dead(self, letter: DeadLetter) -> bool:
        """Forget a dead letter, if it was not replaced."""
        if self.dead.get(letter.entry.key) is not letter:
            return False
        del self.dead[letter.entry.key]
        return True

    def drop_queued(self, entry: Entry) -> bool:
        """Forget a queued entry, if it was not changed."""
        if self.queued.get(entry.key) is not entry:
            return False
        self._take(entry)
        return True

    # limits

    def configure(self, configuration: Configuration, now_us: int) -> None:
        """Replace the stored settings; a new rate begins with one second's worth of starts."""
        if configuration.starts_per_second != self.configuration.starts_per_second:
            self._bucket = TokenBucket.full(configuration.starts_per_second or 0.0, now_us)
        self.configuration = configuration
        self.waiters.wake()

    def room(self, concurrency: int, now_us: int) -> int:
        """How many keys may be started now under all limits."""
        stored = self.configuration
        room = stored.room(concurrency, len(self.in_progress))
        return self._bucket.starts(room, stored.starts_per_second, now_us)

    def spend(self, starts: int, now_us: int) -> None:
        """`starts` keys were started."""
        rate = self.configuration.starts_per_second
        if rate is not None:
            self._bucket = self._bucket.refilled(rate, now_us).spent(starts)

    def next_change_us(self, concurrency: int, now_us: int) -> int:
        """Microseconds until a lease step may find something to do, unless a wake-up comes first; 0 = now."""
        steady_us = self._clock.steady_us()
        changes = [held.expires_us - steady_us for held in self.in_progress.values()]
        if self.configuration.room(concurrency, len(self.in_progress)) > 0:
            changes.append(self._next_eligible_us(now_us))
        return max(min(changes, default=_NEVER_US), 0)

    def _next_eligible_us(self, now_us: int) -> int:
        self.promote(now_us)
        if self.ready.peek() is None:
            return self._due[0][0] - now_us if self._due else _NEVER_US
        rate = self.configuration.starts_per_second
        return self._bucket.refilled(rate, now_us).wait_us(rate) if rate is not None else 0

    # views

    def state(self, key: str) -> KeyState | None:
        """Where `key` is: in progress over queued over dead-lettered; None = nowhere."""
        held = self.in_progress.get(key)
        queued, dead = self.queued.get(key), self.dead.get(key)
        if held is None:
            return state_of(queued, None, "", dead)
        return state_of(queued, held.entry, held.owner, dead, held.seen(self._clock))

    def delayed(self, limit: int, now_us: int) -> list[Entry]:
        """The next entries to come due, soonest first."""
        self.promote(now_us)
        return heapq.nsmallest(limit, self._delayed.values(), key=lambda entry: (entry.not_before_us, entry.key))

    def all_delayed(self) -> Collection[Entry]:
        """The entries whose time has not come, in no order."""
        return self._delayed.values()

    def counts(self, now_us: int) -> Counts:
        """The gauges, from what is kept anyway."""
        self.promote(now_us)
        running, oldest_us = list(self.in_progress.values()), self.ready.oldest_us()
        return Counts(
            queued=len(self.queued) - self._twins - len(self._delayed),
            not_before=len(self._delayed),
            twins=self._twins,
            in_progress=len(running),
            dead_lettered=len(self.dead),
            oldest_queued_seconds=max(now_us - oldest_us, 0) / 1e6 if oldest_us is not None else 0.0,
            max_attempts=max((*self._attempts, *(held.entry.attempts for held in running)), default=0),
            in_progress_by_owner=Counter(held.owner for held in running),
        )

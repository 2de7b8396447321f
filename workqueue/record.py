"""All of one key in one record, and each step as one change of it: the short way to a backend of your own.

A store that can replace one record atomically (a row in a transaction, a document by its version, a dict under a lock)
is a backend once it hands its `change` to `RecordHandles`; examples/three_verbs.py is one. What a step makes of a
record is pure. A backend that takes steps on many keys at once, to be exact and fast, keeps its own places instead.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace

from workqueue.clock import Clock
from workqueue.errors import KeyNotFoundError, StartLostError
from workqueue.handles import UNSEEN, Dead, LeaseTimesSeen, Observed, Owned, Queued, fenced, state_of
from workqueue.interface import KeyState, Snapshot
from workqueue.lease import Lease, LeaseRenewer
from workqueue.rules import (
    DeadLetter,
    Entry,
    Requeue,
    dead_lettered,
    merge_incoming,
    merge_into_twin,
    redriven,
    released,
    requeued,
    spared,
    started,
)

__all__ = ["NOWHERE", "Change", "Held", "Record", "RecordHandles", "enqueuing", "renewing"]


@dataclass(frozen=True, slots=True)
class Held:
    """The entry of a key in progress, and its lease as the store sees it, from and until when by its steady clock."""

    entry: Entry
    token: str
    owner: str
    began_us: int
    expires_us: int


@dataclass(frozen=True, slots=True)
class Record:
    """One key in every place where it is; a key that is nowhere equals `NOWHERE` and need not be kept."""

    queued: Entry | None = None
    held: Held | None = None
    dead: DeadLetter | None = None


NOWHERE = Record()

Change = Callable[[Record], Record | None]
"""What a step makes of a key's record; None = the step does not apply (any more), and nothing is to be changed.

It is pure and quick: a store that lost a race may call it again on the record as it is by then.
"""

_Ending = Callable[[Record], Record]


def enqueuing(incoming: Entry) -> Change:
    """The change of an enqueue."""

    def change(record: Record) -> Record:
        queued = merge_incoming(record.queued, incoming) if record.queued is not None else incoming
        return replace(record, queued=queued)

    return change


def renewing(lease: Lease, expires_us: int) -> Change:
    """The change of a renewal: the lease lasts until `expires_us`, if `lease` still owns the key."""

    def change(record: Record) -> Record | None:
        held = record.held
        if held is None or held.token != lease.token:
            return None
        return replace(record, held=replace(held, expires_us=expires_us))

    return change


class RecordHandles:
    """The `HandleStore` of a backend that keeps records, and its views of them.

    Args:
        change: applies a change to one key's record atomically; returns whether it applied.
        renewer: keeps the leases won here alive; the backend's renewal applies `renewing` to each.
        clock: judges leases and not-before; one for all who open the store.
        owner: recorded with the keys that are started here.
    """

    def __init__(
        self,
        change: Callable[[str, Change], Awaitable[bool]],
        renewer: LeaseRenewer,
        clock: Clock,
        owner: str = "",
    ) -> None:
        self._change = change
        self._renewer = renewer
        self._clock = clock
        self._owner = owner
        self._lease_us = renewer.times.duration_us

    # views

    def snapshot(self, records: Iterable[Record], limit: int) -> Snapshot:
        """What `enumerate` answers, given every record."""
        records, now_us = list(records), self._clock.wall_us()
        running = [record.held for record in records if record.held is not None]
        eligible = [record.queued for record in records if record.queued and _eligible(record, now_us)]
        eligible.sort(key=lambda entry: (-entry.priority, entry.queued_us, entry.key))
        return Snapshot(
            [self._observed(held) for held in running],
            [Queued(self, entry) for entry in eligible[:limit]],
            [Queued(self, record.queued) for record in records if record.queued and record.held],
            self._dead([record.dead for record in records if record.dead is not None]),
        )

    def state(self, key: str, record: Record) -> KeyState:
        """What `get` answers, given the record of `key`.

        Raises:
            KeyNotFoundError: it is nowhere.
        """
        held = record.held
        running, owner, seen = (held.entry, held.owner, self._seen(held)) if held else (None, "", UNSEEN)
        state = state_of(record.queued, running, owner, record.dead, seen)
        if state is None:
            raise KeyNotFoundError(f"no key {key!r} in this queue")
        return state

    def _observed(self, held: Held) -> Observed:
        orphaned = held.expires_us <= self._clock.steady_us()
        return Observed(self, held.entry, held.owner, orphaned, held, self._seen(held))

    def _seen(self, held: Held) -> LeaseTimesSeen:
        steady_is_behind_us = self._clock.wall_us() - self._clock.steady_us()
        return LeaseTimesSeen(held.began_us + steady_is_behind_us, held.expires_us + steady_is_behind_us)

    async def _dead(self, letters: Iterable[DeadLetter]) -> AsyncIterator[Dead]:
        for letter in letters:
            yield Dead(self, letter)

    # the verbs of a queued key

    async def start(self, queued: Queued) -> Owned:
        now_us, sent_us = self._clock.wall_us(), self._clock.steady_us()
        lease = Lease(queued.key, uuid.uuid4().hex)
        held = Held(started(queued.entry), lease.token, self._owner, sent_us, sent_us + self._lease_us)

        def change(record: Record) -> Record | None:
            unchanged = record.queued == queued.entry and _eligible(record, now_us)
            return replace(record, queued=None, held=held) if unchanged else None

        if not await self._change(queued.key, change):
            raise StartLostError
        self._renewer.hold(lease, sent_us)
        return Owned(self, held.entry, lease)

    async def drop_queued(self, queued: Queued) -> bool:
        return await self._change(
            queued.key, lambda record: replace(record, queued=None) if record.queued == queued.entry else None
        )

    # the verbs of an owned key: whoever holds the token, and only he, may write

    async def complete(self, owned: Owned) -> bool:
        return await self._settle(owned, lambda record: replace(record, dead=None))

    async def requeue(self, owned: Owned, how: Requeue) -> bool:
        return await self._settle(owned, self._requeued(owned.entry, how))

    async def dead_letter(self, owned: Owned, error: str) -> bool:
        return await self._settle(owned, self._given_up(owned.entry, error))

    async def release(self, owned: Owned) -> bool:
        return await self._settle(owned, lambda record: _returned(record, released(owned.entry), release=True))

    def abandon(self, owned: Owned) -> None:
        self._renewer.drop(owned.lease)

    async def _settle(self, owned: Owned, ending: _Ending) -> bool:
        def change(record: Record) -> Record | None:
            ours = record.held is not None and record.held.token == owned.lease.token
            return ending(replace(record, held=None)) if ours else None

        return await fenced(owned, self._renewer, lambda: self._change(owned.key, change), lost=False)

    # the verbs of an observed key: the lease must be the very one that was observed

    async def requeue_observed(self, observed: Observed, how: Requeue) -> bool:
        return await self._take(observed, self._requeued(observed.entry, how))

    async def dead_letter_observed(self, observed: Observed, error: str) -> bool:
        return await self._take(observed, self._given_up(observed.entry, error))

    async def _take(self, observed: Observed, ending: _Ending) -> bool:
        return await self._change(
            observed.key,
            lambda record: ending(replace(record, held=None)) if record.held == observed.version else None,
        )

    # the verbs of a dead letter

    async def redrive(self, dead: Dead) -> bool:
        now_us = self._clock.wall_us()

        def change(record: Record) -> Record | None:
            if record.dead != dead.letter:
                return None
            return replace(record, queued=redriven(dead.letter, record.queued, now_us), dead=None)

        return await self._change(dead.key, change)

    async def drop_dead(self, dead: Dead) -> bool:
        return await self._change(
            dead.key, lambda record: replace(record, dead=None) if record.dead == dead.letter else None
        )

    # how an attempt ends

    def _requeued(self, entry: Entry, how: Requeue) -> _Ending:
        back = requeued(entry, how, self._clock.wall_us())
        return lambda record: _returned(record, back)

    def _given_up(self, entry: Entry, error: str) -> _Ending:
        letter = dead_lettered(entry, error, self._clock.wall_us())

        def ending(record: Record) -> Record:
            twin = spared(record.queued) if record.queued is not None else None
            return replace(record, queued=twin, dead=letter)

        return ending


def _eligible(record: Record, now_us: int) -> bool:
    return record.queued is not None and record.held is None and record.queued.not_before_us <= now_us


def _returned(record: Record, entry: Entry, *, release: bool = False) -> Record:
    twin = record.queued
    return replace(record, queued=entry if twin is None else merge_into_twin(twin, entry, release=release))

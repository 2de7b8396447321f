"""Stages 1-6: the whole vocabulary of a queue. Three verbs; what you may do next hangs on the handle you hold.

`WorkQueue` is all that a backend must offer. `BulkQueue`, `LeasingQueue`, `CountingQueue`, `SearchableQueue`,
`WaitingQueue`, `ConfigurableQueue` and `equipment.EquippedQueue` are optional: a backend that has them is faster and
exact, for one that has not `fallbacks` does the same over the three verbs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Protocol, Self, TypeGuard, TypeVar, runtime_checkable

from workqueue.backoff import Backoff
from workqueue.lease import Lost
from workqueue.options import Options, no_meta
from workqueue.orphan import ORPHAN_ERROR
from workqueue.throttle import Configuration

__all__ = [
    "BulkQueue",
    "ConfigurableQueue",
    "CountingQueue",
    "Counts",
    "DeadLetteredKey",
    "Found",
    "KeyState",
    "KeyStatus",
    "LeaseRequest",
    "Leased",
    "LeasingQueue",
    "ObservedInProgressKey",
    "OwnedInProgressKey",
    "QueuedKey",
    "RecoveredOrphan",
    "SearchableQueue",
    "Snapshot",
    "UnreadableKey",
    "WaitingQueue",
    "WorkQueue",
    "offers",
]


_P = TypeVar("_P")


class KeyStatus(IntEnum):
    """Where a key is; the numbers are those of the wire."""

    UNKNOWN = 0
    QUEUED = 1
    IN_PROGRESS = 2
    DEAD_LETTER = 3


@dataclass(frozen=True, slots=True)
class KeyState:
    """What is known of one key; a key in several places is reported in progress over queued over dead-lettered.

    `error` and `failed_time` are those of its dead letter, wherever else it is. `last_error` says why its last attempt
    failed, at most 512 bytes of it, until it completes or its attempts return to 0. Of a key in progress,
    `attempt_began` and `lease_expires` say since when, and until when unless its lease is renewed.
    """

    key: str
    status: KeyStatus
    priority: int = 0
    attempts: int = 0
    queued_time: datetime | None = None
    not_before: datetime | None = None
    floor: bool = False
    owner: str = ""
    error: str = ""
    failed_time: datetime | None = None
    payload: bytes | None = None
    meta: Mapping[str, str] = field(default_factory=no_meta)
    last_error: str = ""
    attempt_began: datetime | None = None
    lease_expires: datetime | None = None


class QueuedKey(Protocol):
    """A key waiting in the queue, as of when it was listed."""

    @property
    def key(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def queued_time(self) -> datetime: ...
    @property
    def not_before(self) -> datetime | None: ...
    @property
    def floor(self) -> bool: ...
    @property
    def payload(self) -> bytes | None: ...
    @property
    def meta(self) -> Mapping[str, str]: ...
    @property
    def last_error(self) -> str:
        """Why its last attempt failed; '' = none did since its attempts were 0."""

    async def start(self) -> OwnedInProgressKey:
        """Take the lease of this key: one attempt more, not-before and floor cleared.

        Raises:
            StartLostError: another owner has it, or the entry changed or went since it was listed.
        """

    async def drop(self) -> bool:
        """Remove the queued entry, if unchanged since listed; returns whether it was."""


class OwnedInProgressKey(Protocol):
    """A key whose lease this process holds. Each settling verb returns False, changing nothing, if the lease was lost.

    `lost` is set as soon as the lease is known to be gone. A handle settles once: after one settle was applied the
    others return False.
    """

    @property
    def key(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def payload(self) -> bytes | None: ...
    @property
    def meta(self) -> Mapping[str, str]: ...
    @property
    def queued_time(self) -> datetime: ...
    @property
    def first_queued_time(self) -> datetime:
        """When this key's present story began: its first enqueue since it last completed."""

    @property
    def lost(self) -> Lost: ...

    async def complete(self) -> bool:
        """The key is done: it leaves in-progress, a dead letter of it goes too, a twin stays queued."""

    async def requeue(
        self,
        *,
        delay: timedelta | None = None,
        backoff: timedelta | None = None,
        floor: bool = False,
        error: str = "",
    ) -> bool:
        """Back to the queue, merged with a twin if there is one; the arguments are those of `rules.Requeue`.

        Raises:
            InvalidOptionsError: as `rules.Requeue`, or a backoff of zero; nothing was changed.
        """

    async def dead_letter(self, error: str) -> bool:
        """Give the key up: a dead letter with `error` replaces an older one; a twin stays queued with attempts 0."""

    async def release(self) -> bool:
        """Hand the key back unspent: attempts - 1, at its old place in the queue."""

    def abandon(self) -> None:
        """Stop renewing the lease and leave the key to lapse; it becomes an orphan. Writes nothing."""


class ObservedInProgressKey(Protocol):
    """A key that some process has in progress, as of when it was listed.

    The verbs are no-ops (False) once its lease changed hands, was settled or was renewed since. They also work on a
    lease that has not lapsed: that is how an operator takes a key from an owner known to be gone. A dispatcher uses
    them on orphans only.
    """

    @property
    def key(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def owner(self) -> str:
        """The `owner` that its process was opened with, or ''."""

    @property
    def orphaned(self) -> bool:
        """Whether its lease had lapsed when it was listed."""

    @property
    def queued_time(self) -> datetime: ...
    @property
    def first_queued_time(self) -> datetime:
        """When this key's present story began: its first enqueue since it last completed."""

    @property
    def last_error(self) -> str:
        """Why an attempt before this one failed; '' = none did."""

    @property
    def attempt_began(self) -> datetime | None:
        """When this attempt was started; None where the store does not say."""

    @property
    def lease_expires(self) -> datetime | None:
        """When its lease lapses unless it is renewed; None where the store does not say."""

    async def requeue(self, *, backoff: timedelta | None = None) -> bool:
        """Take the key from its owner and queue it again, attempts kept, merged with a twin.

        `backoff` is that of `rules.Requeue`: zero means at once, whatever the priority; None is a bare requeue.
        """

    async def dead_letter(self, error: str) -> bool:
        """Take the key from its owner and give it up, with `error` in the dead letter."""


class DeadLetteredKey(Protocol):
    """A key that was given up, as of when it was listed. The verbs return False if the dead letter changed since."""

    @property
    def key(self) -> str: ...
    @property
    def priority(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def error(self) -> str: ...
    @property
    def queued_time(self) -> datetime:
        """When its story began: the first enqueue."""

    @property
    def failed_time(self) -> datetime: ...
    @property
    def payload(self) -> bytes | None: ...
    @property
    def meta(self) -> Mapping[str, str]: ...

    async def requeue(self) -> bool:
        """Re-drive: queue the key with attempts 0 and remove the dead letter, in one step."""

    async def drop(self) -> bool:
        """Remove the dead letter."""


class UnreadableKey(Protocol):
    """A key whose record nobody can read: written by hand, cut off, or by a program that is not ours.

    A backend sets it aside, so that the others go on, logs it once, and counts it. It takes no part in dispatching.
    """

    @property
    def key(self) -> str: ...
    @property
    def place(self) -> KeyStatus:
        """Where its record lies."""

    @property
    def reason(self) -> str:
        """What is wrong with the record, in one line."""

    async def drop(self) -> bool:
        """Remove the record, if unchanged since listed; returns whether it was."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What `enumerate` found.

    Args:
        in_progress: everything in progress, orphans included.
        queued: the next eligible keys, in the order in which they would start.
        twins: the queued entries of keys in progress; they are not eligible and do not count towards the limit.
        dead_letters: every dead letter, read in pages as it is iterated; may be iterated once.
        unreadable: what was set aside because its record cannot be read; at most 1,000 of them.
    """

    in_progress: Sequence[ObservedInProgressKey]
    queued: Sequence[QueuedKey]
    twins: Sequence[QueuedKey]
    dead_letters: AsyncIterator[DeadLetteredKey]
    unreadable: Sequence[UnreadableKey] = ()


@runtime_checkable
class WorkQueue(Protocol):
    """A queue of deduplicated keys: the three verbs that every backend has. Backends are async context managers."""

    async def queue(self, key: str, options: Options = Options()) -> None:
        """Store `key`, merged with its queued entry if there is one. When this returns, the key is kept.

        Raises:
            InvalidKeyError, InvalidOptionsError, PayloadTooLargeError: nothing was stored.
            StoreError: unknown whether it was stored; enqueueing again is safe.
        """

    async def enumerate(self, limit: int = 100) -> Snapshot:
        """Everything in progress, the next `limit` (>= 0) eligible keys in order, the twins, and the dead letters."""

    async def get(self, key: str) -> KeyState:
        """The state of one key.

        Raises:
            KeyNotFoundError: it is nowhere.
        """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a dispatcher asks of `lease`.

    Args:
        limit: start at most this many keys (>= 0).
        concurrency: start none beyond this many live leases over all dispatchers (>= 1).
        max_retry: an orphan with this many attempts is dead-lettered; 0 = never.
        backoff: the hook that decides how long a requeued orphan waits (see `orphan_wait`).
    """

    limit: int
    concurrency: int
    max_retry: int = 0
    backoff: Backoff | None = None


@dataclass(frozen=True, slots=True)
class RecoveredOrphan:
    """An orphan that `lease` took from its lapsed owner: `dead_lettered` with `error`, or else requeued."""

    key: str
    attempts: int
    owner: str
    priority: int
    first_queued_time: datetime
    dead_lettered: bool

    @property
    def error(self) -> str:
        """What its dead letter says; empty if it was requeued."""
        return ORPHAN_ERROR if self.dead_lettered else ""


@dataclass(frozen=True, slots=True)
class Leased:
    """What one `lease` step did: the keys it started and the orphans it recovered.

    Where a step is made of several requests, `errors` has those of the keys for which the store failed.
    """

    started: Sequence[OwnedInProgressKey]
    recovered: Sequence[RecoveredOrphan] = ()
    errors: Sequence[Exception] = ()


@dataclass(frozen=True, slots=True)
class Counts:
    """How many keys are where, from indexes, never by scanning a backlog.

    `queued` counts eligible keys, `not_before` those whose time has not come, `twins` those that wait for their own
    attempt to end. `oldest_queued_seconds` is how long the longest-waiting eligible key could have been started by now.
    `max_attempts` is over queued and in-progress keys. `unreadable` counts what was set aside (`UnreadableKey`).
    """

    queued: int = 0
    not_before: int = 0
    twins: int = 0
    in_progress: int = 0
    dead_lettered: int = 0
    oldest_queued_seconds: float = 0.0
    max_attempts: int = 0
    in_progress_by_owner: Mapping[str, int] = field(default_factory=dict)
    unreadable: int = 0


@runtime_checkable
class BulkQueue(Protocol):
    """Optional: many enqueues in one step."""

    async def queue_many(self, items: Iterable[tuple[str, Options]]) -> None:
        """Store every key, as `queue` does. All are validated first: one invalid key stores none.

        Raises:
            InvalidKeyError, InvalidOptionsError, PayloadTooLargeError: nothing was stored.
            StoreError: unknown which were stored; enqueueing all again is safe.
        """


@runtime_checkable
class LeasingQueue(Protocol):
    """Optional: recovery and start in one atomic step; `exact` says that P4 holds without slack."""

    @property
    def exact(self) -> bool: ...

    async def lease(self, request: LeaseRequest) -> Leased:
        """Requeue or dead-letter every orphan, then start eligible keys in order, within all limits.

        A caller must let it finish: keys that it started belong to the caller, who settles or releases every one.
        """


@runtime_checkable
class CountingQueue(Protocol):
    """Optional: gauges without a scan."""

    async def counts(self) -> Counts:
        """The present `Counts`; O(log n)."""


@dataclass(frozen=True, slots=True)
class Found:
    """The handles of one key, in every place where it is."""

    queued: QueuedKey | None = None
    in_progress: ObservedInProgressKey | None = None
    dead_letter: DeadLetteredKey | None = None
    unreadable: UnreadableKey | None = None


@runtime_checkable
class SearchableQueue(Protocol):
    """Optional: what an operator needs beside `enumerate`, which lists only what a dispatcher needs."""

    async def find(self, key: str) -> Found:
        """The handles of `key`; all None if it is nowhere."""

    async def delayed(self, limit: int = 100) -> Sequence[QueuedKey]:
        """The next `limit` queued keys whose not-before has not passed, soonest first."""


@runtime_checkable
class WaitingQueue(Protocol):
    """Optional: wake-ups instead of polling."""

    async def wait(self, timeout: timedelta, concurrency: int) -> None:
        """Return as soon as a key may be startable under `concurrency`, at the latest after `timeout`.

        Early returns are allowed, as long as an idle queue does not turn them into a busy loop.
        """


@runtime_checkable
class ConfigurableQueue(Protocol):
    """Optional: settings stored with the queue, honoured inside `lease` by every dispatcher."""

    async def configure(self, configuration: Configuration) -> None:
        """Replace the stored settings. After a reduction nothing is cancelled; starts resume once there is room."""

    async def configuration(self) -> Configuration:
        """The stored settings."""


def offers(queue: object, protocol: type[_P]) -> TypeGuard[_P]:
    """Whether `queue` has all that `protocol` asks for, be it only by a `__getattr__` that passes calls on.

    isinstance does not see those any more: from Python 3.12 on it looks at the class alone, and a queue in a wrapper
    would lose its exact limit and its wake-ups without a word.
    """
    return all(hasattr(queue, name) for name in vars(protocol) if not name.startswith("_"))

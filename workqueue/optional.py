"""What a backend may offer beyond `interface.WorkQueue`, so that it is faster and exact.

For a backend that has none of these Protocols `fallbacks` does the same over the three verbs. One more is
`equipment.EquippedQueue`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol, TypeGuard, TypeVar, runtime_checkable

from workqueue.backoff import Backoff
from workqueue.interface import DeadLetteredKey, ObservedInProgressKey, OwnedInProgressKey, QueuedKey, UnreadableKey
from workqueue.options import Options, check_type
from workqueue.orphan import ORPHAN_ERROR
from workqueue.paging import Page, PageRequest
from workqueue.throttle import Configuration

__all__ = [
    "BulkQueue",
    "Completed",
    "CompletingQueue",
    "ConfigurableQueue",
    "CountingQueue",
    "Counts",
    "Found",
    "LeaseRequest",
    "Leased",
    "LeasingQueue",
    "PagedQueue",
    "PipelinedQueue",
    "RecoveredOrphan",
    "SearchableQueue",
    "WaitingQueue",
    "offers",
]

_P = TypeVar("_P")


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What a dispatcher asks of `lease`.

    Args:
        limit: start at most this many keys (>= 0).
        concurrency: start none beyond this many live leases over all dispatchers (>= 1).
        max_retry: an orphan with this many attempts is dead-lettered; 0 = never.
        backoff: the hook that decides how long a requeued orphan waits (see `orphan_wait`).
        comes_back: whether the caller asks again after its next `wait`. Then a backend may start a key while it waits;
            that `lease` returns it, or releases it if it asks for none.

    Raises:
        InvalidOptionsError: a number is none.
    """

    limit: int
    concurrency: int
    max_retry: int = 0
    backoff: Backoff | None = None
    comes_back: bool = False

    def __post_init__(self) -> None:
        for name in ("limit", "concurrency", "max_retry"):
            check_type(name, getattr(self, name), int, "a whole number")


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


Completed = Callable[[bool | Exception], None]
"""Receives what `complete` of a handle would have returned or raised; must not raise."""


@runtime_checkable
class CompletingQueue(Protocol):
    """Optional: completing a key without a task that waits for it, as a busy dispatcher does with most of its keys."""

    def complete_soon(self, owned: OwnedInProgressKey, ended: Completed) -> None:
        """Do what `owned.complete()` does, together with what else ends now, and call `ended` once, on the event loop.

        Args:
            owned: a handle that this queue gave out, as it was given out.
            ended: may be called before this returns.

        Raises:
            QueueClosedError: nothing was done, and `ended` will not be called.
        """


@runtime_checkable
class PipelinedQueue(Protocol):
    """Optional: lease steps that overlap, so that the store works on one while the keys of another run.

    What `lease` returns, on the queue's own event loop, is in line when it is returned and not when it is awaited:
    behind the keys that were given to `complete_soon` before, whose slots it finds free.
    """

    @property
    def lease_steps(self) -> int:
        """How many lease steps a busy dispatcher should have under way at once (>= 1)."""


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
        """The handles of `key`; all None if it is nowhere.

        Raises:
            InvalidKeyError: it is no text, or text that no store can hold.
        """

    async def delayed(self, limit: int = 100) -> Sequence[QueuedKey]:
        """The next `limit` queued keys whose not-before has not passed, soonest first."""


@runtime_checkable
class PagedQueue(Protocol):
    """Optional: looking at any number of keys without ever holding them all."""

    async def page(self, request: PageRequest) -> Page:
        """Some keys of one place, in the order of `Place`, from a cursor on.

        While nothing changes, the pages of a place have each of its keys once. Keys that are added, settled or dropped
        between two pages make no other key be skipped or listed twice; whether they are listed themselves depends on
        where they stand.

        Raises:
            InvalidOptionsError: the cursor is of no page of this place.
        """


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

"""The handles of `interface`, written once: what a key looks like, and whom its verbs go to.

A backend is a `HandleStore`; each verb of a handle is one call to it with the handle itself. What proves that the
handle is still current (a token, a version, a generation) is the backend's own and travels in `version`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from workqueue.clock import from_us
from workqueue.errors import InvalidOptionsError
from workqueue.interface import KeyState, KeyStatus
from workqueue.lease import Lease, LeaseRenewer, Lost
from workqueue.optional import Completed, RecoveredOrphan
from workqueue.rules import DeadLetter, Entry, Requeue, last_error, without_error

__all__ = [
    "UNSEEN",
    "Completing",
    "Dead",
    "HandleStore",
    "LeaseTimesSeen",
    "Observed",
    "Owned",
    "Queued",
    "Unreadable",
    "fenced",
    "recovered_orphan",
    "state_of",
]

_T = TypeVar("_T")
_Applied = Coroutine[Any, Any, bool]


class HandleStore(Protocol):
    """What a backend does for its handles. Every verb returns False, and changes nothing, if the handle is outdated."""

    async def start(self, queued: Queued) -> Owned:
        """Raises StartLostError if the entry changed, went or is in progress."""

    async def drop_queued(self, queued: Queued) -> bool: ...
    async def complete(self, owned: Owned) -> bool: ...
    async def requeue(self, owned: Owned, how: Requeue) -> bool: ...
    async def dead_letter(self, owned: Owned, error: str) -> bool: ...
    async def release(self, owned: Owned) -> bool: ...
    def abandon(self, owned: Owned) -> None: ...
    async def requeue_observed(self, observed: Observed, how: Requeue) -> bool: ...
    async def dead_letter_observed(self, observed: Observed, error: str) -> bool: ...
    async def redrive(self, dead: Dead) -> bool: ...
    async def drop_dead(self, dead: Dead) -> bool: ...


@dataclass(frozen=True, slots=True)
class LeaseTimesSeen:
    """When an attempt in progress was started and when its lease lapses: wall microseconds, 0 = not known."""

    began_us: int = 0
    expires_us: int = 0


UNSEEN = LeaseTimesSeen()


def _moment(us: int) -> datetime | None:
    return from_us(us) if us else None


class _Listed:
    """The attributes that every handle reads off its entry."""

    __slots__ = ("_store", "entry", "key")

    def __init__(self, store: HandleStore, entry: Entry) -> None:
        self._store = store
        self.entry = entry
        self.key = entry.key  # no property: it is read five times an attempt

    @property
    def priority(self) -> int:
        return self.entry.priority

    @property
    def attempts(self) -> int:
        return self.entry.attempts

    @property
    def payload(self) -> bytes | None:
        return self.entry.payload

    @property
    def meta(self) -> Mapping[str, str]:
        return without_error(self.entry.meta)

    @property
    def last_error(self) -> str:
        return last_error(self.entry.meta)

    @property
    def queued_time(self) -> datetime:
        return from_us(self.entry.queued_us)

    @property
    def first_queued_time(self) -> datetime:
        return from_us(self.entry.first_queued_us)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.entry.key!r}, attempts={self.entry.attempts})"


class Queued(_Listed):
    """A `QueuedKey`. `version` proves that the entry is unchanged since it was listed."""

    __slots__ = ("version",)

    def __init__(self, store: HandleStore, entry: Entry, version: Any = None) -> None:
        super().__init__(store, entry)
        self.version = version

    @property
    def not_before(self) -> datetime | None:
        return from_us(self.entry.not_before_us) if self.entry.not_before_us else None

    @property
    def floor(self) -> bool:
        return self.entry.floor

    async def start(self) -> Owned:
        return await self._store.start(self)

    async def drop(self) -> bool:
        return await self._store.drop_queued(self)


class Owned(_Listed):
    """An `OwnedInProgressKey`. `lease` proves the ownership; `version` is whatever else the backend pins."""

    __slots__ = ("lease", "lost", "version")

    def __init__(self, store: HandleStore, entry: Entry, lease: Lease, version: Any = None) -> None:
        self._store = store
        self.entry = entry
        self.key = entry.key
        self.lease = lease
        self.lost: Lost = lease.lost
        self.version = version

    # Not `async def` around an await: on the hot path a second coroutine a settle is a tenth of its cost.
    def complete(self) -> _Applied:
        return self._store.complete(self)

    async def requeue(
        self,
        *,
        delay: timedelta | None = None,
        backoff: timedelta | None = None,
        floor: bool = False,
        error: str = "",
    ) -> bool:
        if backoff == timedelta(0):  # an orphan has waited for its lease to lapse; what runs on would spin
            raise InvalidOptionsError("a backoff is more than zero")
        return await self._store.requeue(self, Requeue(delay, backoff, floor, _readable(error)))

    def dead_letter(self, error: str) -> _Applied:
        return self._store.dead_letter(self, _readable(error))

    def release(self) -> _Applied:
        return self._store.release(self)

    def abandon(self) -> None:
        self._store.abandon(self)


class Observed(_Listed):
    """An `ObservedInProgressKey`. `version` proves that the lease is the one that was observed."""

    __slots__ = ("lease", "orphaned", "owner", "version")

    def __init__(
        self,
        store: HandleStore,
        entry: Entry,
        owner: str,
        orphaned: bool,
        version: Any = None,
        lease: LeaseTimesSeen = UNSEEN,
    ) -> None:
        super().__init__(store, entry)
        self.owner = owner
        self.orphaned = orphaned
        self.version = version
        self.lease = lease

    @property
    def attempt_began(self) -> datetime | None:
        return _moment(self.lease.began_us)

    @property
    def lease_expires(self) -> datetime | None:
        return _moment(self.lease.expires_us)

    async def requeue(self, *, backoff: timedelta | None = None) -> bool:
        return await self._store.requeue_observed(self, Requeue(backoff=backoff))

    async def dead_letter(self, error: str) -> bool:
        return await self._store.dead_letter_observed(self, _readable(error))


class Dead(_Listed):
    """A `DeadLetteredKey`. `version` proves that the dead letter was not replaced."""

    __slots__ = ("letter", "version")

    def __init__(self, store: HandleStore, letter: DeadLetter, version: Any = None) -> None:
        super().__init__(store, letter.entry)
        self.letter = letter
        self.version = version

    @property
    def error(self) -> str:
        return self.letter.error

    @property
    def failed_time(self) -> datetime:
        return from_us(self.letter.failed_us)

    @property
    def queued_time(self) -> datetime:
        """When the key's story began: its first enqueue."""
        return from_us(self.letter.entry.first_queued_us)

    async def requeue(self) -> bool:
        return await self._store.redrive(self)

    async def drop(self) -> bool:
        return await self._store.drop_dead(self)


async def fenced(owned: Owned, renewer: LeaseRenewer, write: Callable[[], Awaitable[_T]], *, lost: _T) -> bool:
    """Settle `owned` by `write`, if its lease is still held; every backend's settle goes through here or says why not.

    Renewal stops before the write, so that no renewal meets a key that was settled. A write that fails may have been
    carried out or not: the lease is renewed on, since the caller may try again. A cancelled one is left to lapse, since
    whoever cancels may be gone for good.

    Args:
        owned: the key to settle.
        renewer: keeps its lease alive.
        write: the store's own step, fenced by the lease's token.
        lost: what `write` answers when the token no longer matches.

    Returns:
        Whether it was settled.
    """
    lease = owned.lease
    if lease.lost.is_set():
        return False
    renewer.drop(lease)
    try:
        answer = await write()
    except Exception:
        renewer.keep(lease)
        raise
    if answer == lost:
        lease.lost.set()
        return False
    return True


class Completing:
    """`fenced` for a completion that no task waits for: takes the store's answer in place of a future.

    Args:
        owned: the key to complete; who has asked the store to ends the renewal.
        renewer: keeps its lease alive.
        ended: called once, as `CompletingQueue.complete_soon` says.
        lost: what the store answers when the token no longer matches.
    """

    __slots__ = ("_ended", "_lease", "_lost", "_renewer")

    def __init__(self, owned: Owned, renewer: LeaseRenewer, ended: Completed, *, lost: object) -> None:
        self._lease = owned.lease
        self._renewer = renewer
        self._ended = ended
        self._lost = lost

    def done(self) -> bool:
        return False

    def set_result(self, answer: object) -> None:
        if answer == self._lost:
            self._lease.lost.set()
            return self._ended(False)
        return self._ended(True)

    def set_exception(self, error: Exception) -> None:
        self._renewer.keep(self._lease)
        self._ended(error)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An `UnreadableKey`. `remove` deletes the record if it is still the one that could not be read."""

    key: str
    place: KeyStatus
    reason: str
    remove: Callable[[], Awaitable[bool]]

    async def drop(self) -> bool:
        return await self.remove()


def recovered_orphan(orphan: Entry, owner: str, *, dead_lettered: bool) -> RecoveredOrphan:
    """What a lease step reports of an orphan that it took from `owner`; `orphan` is its entry while in progress."""
    return RecoveredOrphan(
        key=orphan.key,
        attempts=orphan.attempts,
        owner=owner,
        priority=orphan.priority,
        first_queued_time=from_us(orphan.first_queued_us),
        dead_lettered=dead_lettered,
    )


def state_of(
    queued: Entry | None,
    in_progress: Entry | None,
    owner: str,
    dead: DeadLetter | None,
    lease: LeaseTimesSeen = UNSEEN,
) -> KeyState | None:
    """What `get` answers of a key found in these places: in progress over queued over dead-lettered; None = nowhere."""
    if in_progress is not None:
        return _state(in_progress, KeyStatus.IN_PROGRESS, dead, owner=owner, lease=lease)
    if queued is not None:
        return _state(queued, KeyStatus.QUEUED, dead)
    return _state(dead.entry, KeyStatus.DEAD_LETTER, dead) if dead is not None else None


def _state(
    entry: Entry, status: KeyStatus, letter: DeadLetter | None, *, owner: str = "", lease: LeaseTimesSeen = UNSEEN
) -> KeyState:
    story_began = status is KeyStatus.DEAD_LETTER
    return KeyState(
        key=entry.key,
        status=status,
        priority=entry.priority,
        attempts=entry.attempts,
        queued_time=from_us(entry.first_queued_us if story_began else entry.queued_us),
        not_before=_moment(entry.not_before_us),
        floor=entry.floor,
        owner=owner,
        error=letter.error if letter else "",
        failed_time=from_us(letter.failed_us) if letter else None,
        payload=entry.payload,
        meta=without_error(entry.meta),
        last_error=last_error(entry.meta),
        attempt_began=_moment(lease.began_us),
        lease_expires=_moment(lease.expires_us),
    )


def _readable(error: str) -> str:
    """`error` as every store can keep it: one that names a file may hold surrogates, and must not fail the settle.

    Raises:
        InvalidOptionsError: it is no text.
    """
    if not isinstance(error, str):
        raise InvalidOptionsError(f"an error is kept as text, such as str(error), not as a {type(error).__name__}")
    return error if error.isascii() else error.encode("utf-8", "replace").decode()

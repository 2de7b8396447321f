"""The handles of `workqueue.interface` for synchronous code: what was listed, and an operator's verbs.

Keys are not started from here: an attempt needs a lease that is renewed, which is a dispatcher's work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from workqueue import interface, optional, paging
from workqueue.interface import KeyStatus
from workqueue.paging import Place

__all__ = [
    "Call",
    "DeadLetteredKey",
    "Found",
    "ObservedInProgressKey",
    "Page",
    "QueuedKey",
    "Snapshot",
    "UnreadableKey",
    "seen",
]

_T = TypeVar("_T")


class Call(Protocol):
    """Has one step done on the background loop, and waits for it."""

    def __call__(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """What `step` returns or raises."""
        ...


@dataclass(frozen=True)
class QueuedKey:
    """A key waiting in the queue, as of when it was listed (see `interface.QueuedKey`)."""

    key: str
    priority: int
    attempts: int
    queued_time: datetime
    not_before: datetime | None
    floor: bool
    payload: bytes | None
    meta: Mapping[str, str]
    last_error: str
    _handle: interface.QueuedKey = field(repr=False, compare=False)
    _call: Call = field(repr=False, compare=False)

    def drop(self) -> bool:
        """Remove the queued entry, if unchanged since listed; returns whether it was."""
        return self._call(self._handle.drop)


@dataclass(frozen=True)
class ObservedInProgressKey:
    """A key that some process has in progress, as of when it was listed (see `interface.ObservedInProgressKey`)."""

    key: str
    priority: int
    attempts: int
    owner: str
    orphaned: bool
    queued_time: datetime
    first_queued_time: datetime
    last_error: str
    attempt_began: datetime | None
    lease_expires: datetime | None
    _handle: interface.ObservedInProgressKey = field(repr=False, compare=False)
    _call: Call = field(repr=False, compare=False)

    def requeue(self, *, backoff: timedelta | None = None) -> bool:
        """Take the key from its owner and queue it again, attempts kept, merged with a twin."""
        return self._call(lambda: self._handle.requeue(backoff=backoff))

    def dead_letter(self, error: str) -> bool:
        """Take the key from its owner and give it up, with `error` in the dead letter."""
        return self._call(lambda: self._handle.dead_letter(error))


@dataclass(frozen=True)
class DeadLetteredKey:
    """A key that was given up, as of when it was listed (see `interface.DeadLetteredKey`)."""

    key: str
    priority: int
    attempts: int
    error: str
    queued_time: datetime
    failed_time: datetime
    payload: bytes | None
    meta: Mapping[str, str]
    _handle: interface.DeadLetteredKey = field(repr=False, compare=False)
    _call: Call = field(repr=False, compare=False)

    def requeue(self) -> bool:
        """Re-drive: queue the key with attempts 0 and remove the dead letter, in one step."""
        return self._call(self._handle.requeue)

    def drop(self) -> bool:
        """Remove the dead letter."""
        return self._call(self._handle.drop)


@dataclass(frozen=True)
class UnreadableKey:
    """A key whose record nobody can read (see `interface.UnreadableKey`)."""

    key: str
    place: KeyStatus
    reason: str
    _handle: interface.UnreadableKey = field(repr=False, compare=False)
    _call: Call = field(repr=False, compare=False)

    def drop(self) -> bool:
        """Remove the record, if unchanged since listed; returns whether it was."""
        return self._call(self._handle.drop)


@dataclass(frozen=True)
class Snapshot:
    """What `enumerate` found (see `interface.Snapshot`); `dead_letters` may be iterated once."""

    in_progress: Sequence[ObservedInProgressKey]
    queued: Sequence[QueuedKey]
    twins: Sequence[QueuedKey]
    dead_letters: Iterator[DeadLetteredKey]
    unreadable: Sequence[UnreadableKey] = ()

    @classmethod
    def of(cls, found: interface.Snapshot, call: Call) -> Snapshot:
        """`found`, for synchronous code."""
        return cls(
            [seen(ObservedInProgressKey, handle, call) for handle in found.in_progress],
            [seen(QueuedKey, handle, call) for handle in found.queued],
            [seen(QueuedKey, handle, call) for handle in found.twins],
            _letters(found, call),
            [seen(UnreadableKey, handle, call) for handle in found.unreadable],
        )


@dataclass(frozen=True)
class Found:
    """The handles of one key, in every place where it is (see `optional.Found`)."""

    queued: QueuedKey | None = None
    in_progress: ObservedInProgressKey | None = None
    dead_letter: DeadLetteredKey | None = None
    unreadable: UnreadableKey | None = None

    @classmethod
    def of(cls, found: optional.Found, call: Call) -> Found:
        """`found`, for synchronous code."""
        return cls(
            None if found.queued is None else seen(QueuedKey, found.queued, call),
            None if found.in_progress is None else seen(ObservedInProgressKey, found.in_progress, call),
            None if found.dead_letter is None else seen(DeadLetteredKey, found.dead_letter, call),
            None if found.unreadable is None else seen(UnreadableKey, found.unreadable, call),
        )


@dataclass(frozen=True)
class Page:
    """Some keys of one place (see `paging.Page`)."""

    keys: Sequence[QueuedKey | ObservedInProgressKey | DeadLetteredKey | UnreadableKey]
    cursor: str = ""

    @classmethod
    def of(cls, found: paging.Page, place: Place, call: Call) -> Page:
        """`found`, a page of that place, for synchronous code."""
        return cls([seen(_KINDS[place], handle, call) for handle in found.keys], found.cursor)


_KINDS: Mapping[Place, Any] = {
    Place.IN_PROGRESS: ObservedInProgressKey,
    Place.QUEUED: QueuedKey,
    Place.TWINS: QueuedKey,
    Place.DELAYED: QueuedKey,
    Place.DEAD_LETTERED: DeadLetteredKey,
    Place.UNREADABLE: UnreadableKey,
}

_H = TypeVar("_H", QueuedKey, ObservedInProgressKey, DeadLetteredKey, UnreadableKey)


def seen(kind: type[_H], handle: Any, call: Call) -> _H:
    """A `kind` with what `handle` shows now; its verbs are those of `handle`."""
    names = [each.name for each in fields(kind) if not each.name.startswith("_")]
    shown: dict[str, Any] = {name: getattr(handle, name) for name in names}
    return kind(**shown, _handle=handle, _call=call)


_PAGE = 100  # dead letters of one hand-over


def _letters(found: interface.Snapshot, call: Call) -> Iterator[DeadLetteredKey]:
    letters = aiter(found.dead_letters)

    async def page() -> list[interface.DeadLetteredKey]:
        taken: list[interface.DeadLetteredKey] = []
        while len(taken) < _PAGE and (letter := await anext(letters, None)) is not None:
            taken.append(letter)
        return taken

    while taken := call(page):
        yield from (seen(DeadLetteredKey, letter, call) for letter in taken)

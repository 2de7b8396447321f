"""The whole vocabulary of a queue. Three verbs; what you may do next hangs on the handle you hold.

`WorkQueue` is all that a backend must offer. What it may offer besides stands in `optional`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, Self, runtime_checkable

from workqueue.lease import Lost
from workqueue.options import Options, no_meta

__all__ = [
    "DeadLetteredKey",
    "KeyState",
    "KeyStatus",
    "ObservedInProgressKey",
    "OwnedInProgressKey",
    "QueuedKey",
    "Snapshot",
    "UnreadableKey",
    "WorkQueue",
]


class KeyStatus(StrEnum):
    """Where a key is: a word, in JSON too. The names are those of the wire, which sends a number for each."""

    UNKNOWN = "unknown"
    QUEUED = "queued"
    IN_PROGRESS = "in-progress"
    DEAD_LETTER = "dead-lettered"


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
            InvalidKeyError: it is no text, or text that no store can hold.
        """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc_info: object) -> None: ...

"""Stage 1: every key once per period, without a herd: each has its turn at some time in it, in every period at another.

Where is computed from the key and the number of the period alone. So nothing is stored, several processes agree, and
a restart in the middle of a period changes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from workqueue.clock import Clock, SystemClock, duration_us
from workqueue.errors import InvalidKeyError, InvalidSettingError, StoreUnavailableError, WorkQueueError
from workqueue.key import validate_key
from workqueue.options import Options
from workqueue.safe_text import describe

__all__ = ["BACKGROUND_PRIORITY", "Enqueues", "ListKeys", "ListingError", "Resync", "ResyncTimes", "listed_by", "place"]

log = logging.getLogger(__name__)

BACKGROUND_PRIORITY = -100
"""The priority of keys of which nobody knows that anything changed: below everything that did."""

_BATCH = 500
_RETRY_SECONDS = 5.0
_PLACES = 2**64
_LONGEST_LINE = 64 * 1024  # of a command that lists keys, which have 1000 bytes at most

ListKeys = Callable[[], AsyncIterator[str] | Iterable[str]]
"""Lists every key that there is, one after the other, so that no more than a batch is in memory."""


def listed_by(command: Sequence[str]) -> ListKeys:
    """A listing by a command that writes one key a line; it is read as fast as its keys are enqueued.

    A command that ends with another code than 0 makes the listing fail, once its keys are enqueued.

    Raises:
        InvalidSettingError: there is no such program.
    """
    if not command or shutil.which(command[0]) is None:
        raise InvalidSettingError(f"{' '.join(command)!r} is no command that can be run here")

    async def keys() -> AsyncGenerator[str, None]:
        process = await _started(command)
        assert process.stdout is not None
        try:
            async for line in process.stdout:
                yield line.decode(errors="surrogateescape").rstrip("\r\n")
        except ValueError:  # what StreamReader says of a line beyond its limit
            _kill(process)
            text = f"the command that lists the keys writes a line of more than {_LONGEST_LINE} bytes: {command[0]}"
            raise ListingError(text) from None
        except BaseException:
            _kill(process)
            raise
        finally:
            await process.communicate()  # reads what is left in the pipe, without which it would stay open
        if process.returncode:
            raise ListingError(f"the command that lists the keys ended with {process.returncode}: {command[0]}")

    return keys


async def _started(command: Sequence[str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, limit=_LONGEST_LINE)
    except OSError as error:
        text = f"the command that lists the keys cannot be started: {command[0]}: {error.strerror}"
        raise ListingError(text) from None


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


class ListingError(WorkQueueError):
    """The keys could not be listed; the slot is done again."""


class Enqueues(Protocol):
    """Where keys go: a queue, or the gRPC client of a receiver."""

    async def queue_many(self, items: Iterable[tuple[str, Options]], /) -> None: ...


def place(key: str, period: int) -> int:
    """Where a key has its turn in period number `period`: 0 to 2**64 - 1 from its beginning to its end.

    The same in every process; spread evenly, and shuffled anew in every period, so that what is slow or fails together
    does not meet again.
    """
    raw = key.encode(errors="surrogatepass")  # what is no key has a turn too: then it is logged
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8, salt=period.to_bytes(16, "big")).digest(), "big")


@dataclass(frozen=True, slots=True)
class ResyncTimes:
    """How long a period is and in how many slots it is listed; periods begin at multiples of it since 1970.

    Args:
        period: every key is enqueued once in it.
        every: the keys are listed once in this time, and those are enqueued whose turn has come. `period` is a whole
            multiple of it.

    Raises:
        InvalidSettingError: it is not, or one of them is not above zero.
    """

    period: timedelta
    every: timedelta

    def __post_init__(self) -> None:
        if self.every <= timedelta(0) or self.period < self.every or self.period % self.every:
            raise InvalidSettingError(
                f"a resync lists every key once in a period, in equal slots: the period ({self.period}) is a whole "
                f"multiple of the slot ({self.every})"
            )

    @property
    def slots(self) -> int:
        """How many slots a period has."""
        return self.period // self.every

    def slot_at(self, wall_us: int) -> int:
        """The number of the slot at a wall time, counted since 1970."""
        return wall_us // duration_us(self.every)

    def slot_of(self, key: str, period: int) -> int:
        """The slot in which a key has its turn in a period, counted since 1970."""
        return period * self.slots + place(key, period) * self.slots // _PLACES


class Resync:
    """Enqueues every key that a listing has once per period.

    Args:
        keys: lists them; called once a slot. Keys that come and go are enqueued while they are listed.
        queue: where they go.
        times: period and slots.
        priority: with which they are enqueued; an event about the key raises it.
        clock: where time comes from; the wall clock decides whose turn it is.
    """

    def __init__(
        self,
        keys: ListKeys,
        queue: Enqueues,
        times: ResyncTimes,
        *,
        priority: int = BACKGROUND_PRIORITY,
        clock: Clock | None = None,
    ) -> None:
        self._keys = keys
        self._queue = queue
        self._times = times
        self._options = Options(priority=priority)
        self._clock = clock or SystemClock()

    async def run(self) -> None:
        """Do a slot after the other until cancelled. A slot that fails is done with the next one."""
        done = self._times.slot_at(self._clock.wall_us()) - 1
        while True:
            now = self._times.slot_at(self._clock.wall_us())
            done = min(done, now)  # somebody set the clock back
            if now > done and await self._attempt(done + 1, now):
                done = now
            await self._clock.sleep(self._until_next(done))

    async def once(self) -> int:
        """Do the present slot, for a cron job that runs once a slot; returns how many keys it enqueued.

        Raises:
            StoreError: the queue failed; running it again is safe.
            ListingError: the keys could not be listed; its cause is what was raised.
        """
        now = self._times.slot_at(self._clock.wall_us())
        return await self.sweep(now, now)

    async def sweep(self, first: int, last: int) -> int:
        """Enqueue the keys whose turn is in the slots from `first` to `last`, at most one period of them.

        Raises:
            As `once`.
        """
        first = max(first, last - self._times.slots + 1)
        periods = range(first // self._times.slots, last // self._times.slots + 1)
        batch: list[tuple[str, Options]] = []
        enqueued = 0
        async with aclosing(_listed(self._keys)) as keys:
            async for key in keys:
                if any(first <= self._times.slot_of(key, period) <= last for period in periods) and _is_key(key):
                    batch.append((key, self._options))
                if len(batch) == _BATCH:
                    await self._queue.queue_many(batch)
                    enqueued, batch = enqueued + len(batch), []
        if batch:
            await self._queue.queue_many(batch)
        return enqueued + len(batch)

    async def _attempt(self, first: int, last: int) -> bool:
        try:
            enqueued = await self.sweep(first, last)
        except StoreUnavailableError as error:
            log.warning("resync: the queue cannot be reached, trying again: %s", error)
        except ListingError as error:  # the listing is somebody else's, and asks a database that may be down
            log.error("resync: %s; trying again", error, exc_info=error.__cause__)
        except Exception:
            log.exception("resync: the keys could not be enqueued, trying again")
        else:
            log.info("resync: enqueued %d keys", enqueued)
            return True
        return False

    def _until_next(self, done: int) -> float:
        now_us = self._clock.wall_us()
        if done < self._times.slot_at(now_us):
            return _RETRY_SECONDS
        return max((done + 1) * duration_us(self._times.every) - now_us, 1) / 1e6


async def _listed(keys: ListKeys) -> AsyncGenerator[str, None]:
    """Every key that is text; what else somebody lists is logged."""
    try:
        async with aclosing(_each(keys())) as listing:
            async for key in listing:
                if isinstance(key, str) or _is_key(key):
                    yield key
    except WorkQueueError:
        raise
    except Exception as error:
        raise ListingError(f"the keys could not be listed: {describe(error)}") from error


async def _each(listing: AsyncIterator[Any] | Iterable[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(listing, AsyncGenerator):
        async with aclosing(listing):
            async for key in listing:
                yield key
    elif isinstance(listing, AsyncIterator):
        async for key in listing:
            yield key
    elif isinstance(listing, Iterable) and not isinstance(listing, str):
        for key in listing:
            yield key
    else:
        if isinstance(listing, Coroutine):
            listing.close()
        kind = type(listing).__name__
        raise ListingError(f"what lists the keys returns an iterable or an async iterator of them, not a {kind}")


def _is_key(key: str) -> bool:
    try:
        validate_key(key)
    except InvalidKeyError as error:
        log.error("resync: a key that is none was listed, and is not enqueued: %s", error)
        return False
    return True

"""Stage 1: the background enqueuer: `put()` returns at once, and each key is stored, or reported, or returned.

    async with BackgroundEnqueuer(queue, on_error=report) as enqueuer:
        await enqueuer.put("customer/42")

Until its batch is stored a key lives in this process only. Who must know that a key is kept awaits `queue()` instead.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import CancelledError
from concurrent.futures import Future as ThreadFuture
from datetime import timedelta
from typing import Self, Unpack

from workqueue.clock import Clock, duration_us
from workqueue.enqueuer.batch import Batch, Sink
from workqueue.enqueuer.buffer import Buffer
from workqueue.enqueuer.metrics import EnqueuerMetrics
from workqueue.enqueuer.settings import EnqueuerArgs, EnqueuerSettings
from workqueue.equipment import Equipment
from workqueue.errors import (
    InvalidOptionsError,
    KeysNotSentError,
    QueueClosedError,
    StoreUnavailableError,
    WorkQueueError,
)
from workqueue.optional import offers
from workqueue.options import FailedKey, Options, check_options
from workqueue.telemetry.tracing import with_trace

__all__ = ["BackgroundEnqueuer", "OnError"]

log = logging.getLogger(__name__)

OnError = Callable[[FailedKey], Awaitable[None] | None]
"""Called in the event loop with each key that is given up, one by one."""

_NOTHING_SAID = Options()
_LAST_WORDS_SECONDS = 1.0  # what cancelled sends and the last reports get once the drain timeout is over
_CLOSED = "the background enqueuer is closed: put() works inside its 'async with' block"


class BackgroundEnqueuer:
    """Sends keys to `queue` in the background, from `async with` until its end, which sends what is left.

    Args:
        queue: any queue, the client of a receiver, or another `Sink`. It is entered and left by its owner, not here.
        on_error: called with every key that is given up. Without it such keys are logged as errors, and leaving the
            block raises a KeysNotSentError.
        clock: where time comes from.
        settings: the fields of `EnqueuerSettings`.

    Raises:
        InvalidOptionsError: `queue` is nothing that keys can be sent to, or a setting is out of range.

    `unsent` has, once the block was left, the keys that could not be sent at the end. `metrics` counts.
    """

    def __init__(
        self,
        queue: Sink,
        *,
        on_error: OnError | None = None,
        clock: Clock | None = None,
        **settings: Unpack[EnqueuerArgs],
    ) -> None:
        if not offers(queue, Sink):
            raise InvalidOptionsError(f"an enqueuer takes a queue that is open, not a {type(queue).__name__}")
        self.settings = EnqueuerSettings(**settings)
        equipment = Equipment.of(queue)
        self.metrics = EnqueuerMetrics(equipment.name)
        self.unsent: Sequence[FailedKey] = ()
        self._sink = queue
        self._on_error = on_error
        self._clock = clock or equipment.clock
        self._stamped: Callable[[Options], Options] | None = getattr(queue, "stamped", None)
        self._max_payload = equipment.max_payload
        self._buffer = Buffer(self.settings.buffer)
        self._since_us = 0
        self._flying: set[Batch] = set()
        self._unreported: deque[FailedKey] = deque()
        self._news: asyncio.Future[None] | None = None
        self._lingering: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._sender: asyncio.Task[None] | None = None
        self._closing = True  # until it is entered
        self._draining = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop
        self._thread = 0

    async def put(self, key: str, options: Options = _NOTHING_SAID) -> None:
        """Take `key` to be sent, merged with the same key if that still waits; waits while the buffer is full.

        Raises:
            InvalidKeyError, PayloadTooLargeError: it could not be stored as it is; it was not taken.
            QueueClosedError: the enqueuer is closed, or was closed while this waited; it was not taken.
        """
        while not self.try_put(key, options):
            await self._until_room()
        if not self.metrics.put % self.settings.batch:
            await asyncio.sleep(0)  # a producer whose keys all merge never waits, and must not starve the sender

    def try_put(self, key: str, options: Options = _NOTHING_SAID) -> bool:
        """Take `key` if there is room for it; returns whether it was taken. Raises as `put`."""
        if self._closing:
            raise QueueClosedError(_CLOSED)
        if options is not _NOTHING_SAID:
            check_options(options, self._max_payload)
        added = self._buffer.take(key, with_trace(options))
        if added is None:
            return False
        metrics = self.metrics
        metrics.put += 1
        if not added:
            metrics.merged += 1
        elif (ready := len(self._buffer.ready)) == self.settings.batch or ready == 1:
            self._note_ready(ready)
        return True

    def put_threadsafe(self, key: str, options: Options = _NOTHING_SAID) -> None:
        """Do what `put` does from another thread, which waits while the buffer is full.

        Raises:
            InvalidKeyError, PayloadTooLargeError, QueueClosedError: as `put`.
            WorkQueueError: it was called in the thread of the event loop, which would wait for itself.
        """
        if self._closing:
            raise QueueClosedError(_CLOSED)
        if self._thread == threading.get_ident():
            raise WorkQueueError("put_threadsafe was called in the thread of the event loop; await put() there")
        putting = self.put(key, options)
        try:
            taken = asyncio.run_coroutine_threadsafe(putting, self._loop)
        except RuntimeError as error:  # the loop is closed
            putting.close()
            raise QueueClosedError(_CLOSED) from error
        try:
            self._wait_in_thread(taken)
        finally:
            if inspect.getcoroutinestate(putting) == inspect.CORO_CREATED:  # the loop ended before it got so far
                putting.close()

    async def close(self) -> Sequence[FailedKey]:
        """Take no more keys, send those that were taken, and return those that could not be sent.

        Returns within `drain_timeout` and a second, whatever the store does. A second call returns the same.
        """
        self._closing = True
        _set(self._room)
        _set(self._news)
        async with self._draining:
            if self._sender is not None:
                await self._drain(self._sender)
        return self.unsent

    async def __aenter__(self) -> Self:
        if self._thread:
            raise QueueClosedError("a background enqueuer serves one 'async with' block; make another")
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._closing = False
        self._sender = self._loop.create_task(self._run(), name=f"enqueuer-{self.metrics.name}")
        self._sender.add_done_callback(self._ended)
        return self

    async def __aexit__(self, exc_type: object, *exc_info: object) -> None:
        unsent = await self.close()
        if self.metrics.failed and self._on_error is None and exc_type is None:
            raise KeysNotSentError(self.metrics.failed, unsent)

    # taking

    def _note_ready(self, ready: int) -> None:
        """There is a first key, or a full batch."""
        if ready == 1:
            self._since_us = self._clock.steady_us()
        _set(self._news)

    async def _until_room(self) -> None:
        if self._room is None or self._room.done():
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.wait((self._room,))  # not the future itself: a producer that is cancelled would cancel it for all

    def _wait_in_thread(self, taken: ThreadFuture[None]) -> None:
        while True:
            try:
                return taken.result(timeout=_LAST_WORDS_SECONDS)
            except TimeoutError:
                if self._sender is None:
                    taken.cancel()  # by now the loop may have ended, and will never answer
            except CancelledError:
                raise QueueClosedError(_CLOSED) from None

    # sending

    async def _run(self) -> None:
        try:
            async with asyncio.TaskGroup() as sends:
                while self._buffer or not self._closing:
                    seconds = self._due_in()
                    if seconds == 0 and len(self._flying) < self.settings.in_flight:
                        sends.create_task(self._send(self._launch()))
                    else:
                        await self._until_news(seconds)
        finally:
            if self._lingering is not None:
                self._lingering.cancel()

    def _due_in(self) -> float | None:
        """Seconds until the next batch is due; None if there is nothing to send."""
        ready = len(self._buffer.ready)
        if not ready:
            return None
        if self._closing or ready >= self.settings.batch:
            return 0
        lingered_us = self._clock.steady_us() - self._since_us
        return max(duration_us(self.settings.linger) - lingered_us, 0) / 1e6

    def _launch(self) -> Batch:
        items = self._buffer.launch(self.settings.batch)
        if self._stamped is not None:
            items = {key: self._stamped(options) for key, options in items.items()}
        batch = Batch(self._sink, items, self._clock, self._max_payload if self._stamped is None else None)
        self._flying.add(batch)
        self._since_us = self._clock.steady_us()  # what is left came before that, and lingers at most twice
        _set(self._room)
        return batch

    async def _send(self, batch: Batch) -> None:
        await batch.send(self.settings.patience)
        self._land(batch)
        await self._report()

    def _land(self, batch: Batch) -> None:
        if batch not in self._flying:  # it was given up at the end, and came back all the same
            return
        self._flying.discard(batch)
        self._buffer.landed(batch.keys)
        self.metrics.sent += batch.stored
        self._unreported += batch.given_up
        _set(self._news)

    async def _until_news(self, seconds: float | None) -> None:
        self._news = asyncio.get_running_loop().create_future()
        if seconds and self._lingering is None:
            self._lingering = asyncio.create_task(self._linger(seconds))
        await self._news

    async def _linger(self, seconds: float) -> None:
        """Have the sender look again after `seconds`; until then nothing that came later is due.

        So there is one timer at a time. One for each time that the sender waits cost more than all else about a batch.
        """
        await self._clock.sleep(seconds)
        self._lingering = None
        _set(self._news)

    # failing and ending

    async def _report(self) -> None:
        while self._unreported:
            failed = self._unreported.popleft()
            self.metrics.failed += 1
            extra = {"key": failed.key, "queue": self.metrics.name}
            if self._on_error is None:
                log.error("key %r could not be enqueued: %s", failed.key, failed.error, extra=extra)
                continue
            try:
                answer = self._on_error(failed)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:
                log.exception("on_error raised for key %r: %s", failed.key, failed.error, extra=extra)

    async def _drain(self, sender: asyncio.Task[None]) -> None:
        timeout = self.settings.drain_timeout
        expiry = asyncio.ensure_future(self._clock.sleep(timeout.total_seconds()))
        try:
            await asyncio.wait((sender, expiry), return_when=asyncio.FIRST_COMPLETED)
        finally:
            expiry.cancel()
            sender.cancel()
            self.unsent = self._give_up(timeout)
            reporting = asyncio.ensure_future(self._report())
            await asyncio.wait((sender, reporting), timeout=_LAST_WORDS_SECONDS)
            reporting.cancel()
            self._sender = None

    def _give_up(self, timeout: timedelta) -> Sequence[FailedKey]:
        """Everything that was taken and is neither stored nor reported."""
        error = StoreUnavailableError(f"not known to be stored within {timeout}; enqueueing it again is safe")
        left: list[tuple[str, Options]] = []
        for batch in list(self._flying):
            self._land(batch)
            left += batch.waiting.items()
        left += self._buffer.clear().items()
        self._unreported += [FailedKey(key, options, error) for key, options in left]
        return list(self._unreported)

    def _ended(self, sender: asyncio.Task[None]) -> None:
        if not sender.cancelled() and sender.exception() is not None:
            log.error("the background enqueuer ended by a fault of its own", exc_info=sender.exception())
        self._closing = True  # nobody would send what is put from now on
        _set(self._room)


def _set(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)

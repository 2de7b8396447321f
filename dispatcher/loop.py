"""Stage 3: the continuous dispatcher: keeps its slots full without waiting for a round to end, and knows how to stop.

The loop runs in a task of its own that nobody else can cancel, because a lease step that is cut short would leave keys
started that nobody knows of. Cancelling `run` asks it to end, and waits.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any, Self

from dispatcher.attempt import Attempts
from dispatcher.broker import FLUSH_TIMEOUT
from dispatcher.callback import Callback
from dispatcher.error_events import ErrorEvents
from dispatcher.health import Health
from dispatcher.leasing import LeaseSteps, lease_keys
from dispatcher.settings import DispatcherSettings
from dispatcher.setup import Setup
from dispatcher.waiting import to_the_end
from workqueue.clock import duration_us
from workqueue.errors import StoreError
from workqueue.interface import WorkQueue
from workqueue.metrics import DispatchMetrics
from workqueue.optional import Leased
from workqueue.signals import Drains, until_signalled

__all__ = ["Dispatcher", "run_until_signalled"]

log = logging.getLogger(__name__)

_DEFAULTS = DispatcherSettings()
_FIRST_PAUSE_SECONDS = 1.0
_LOOK_SECONDS = 1.0  # how soon a key that has not failed is seen while the target seems down


class Dispatcher:
    """Calls `callback` for the keys of `queue` as they become eligible, until it is stopped or drained.

    `await dispatcher.run()` runs it here; `async with dispatcher:` runs it beside the body and drains it at the end.

    Args:
        queue: any backend.
        callback: a coroutine function or a plain function, called with a key and its `Attempt`.
        settings: how to go about it.
        errors: where error events go.
        metrics: where to count, if somebody else counts there too.

    Raises:
        InvalidSettingError: the callback cannot be called so.
    """

    def __init__(
        self,
        queue: WorkQueue,
        callback: Callback,
        settings: DispatcherSettings = _DEFAULTS,
        *,
        errors: ErrorEvents | None = None,
        metrics: DispatchMetrics | None = None,
    ) -> None:
        self.setup = Setup.of(queue, callback, settings, errors, metrics)
        self.metrics = self.setup.metrics
        self.health = Health(self.setup)
        self._outage = self.setup.outage
        self._attempts = Attempts(self.setup, lasting=True, on_fatal=self._wake)
        self._steps = LeaseSteps(self.setup)
        self._napping: asyncio.Timeout | None = None
        self._dispatching: asyncio.Task[None] | None = None
        self._ending = False
        self._in_a_hurry = False
        self._pause_seconds = 0.0

    async def run(self) -> None:
        """Dispatch until `drain` or `stop`; a cancellation does what `stop` does, and is raised once that is done.

        Raises:
            QueueClosedError: the queue was closed meanwhile.
            KeyboardInterrupt: a callback raised it; the other attempts were ended first.
        """
        await to_the_end(self._start(), self.stop)
        if self._attempts.fatal is not None:
            raise self._attempts.fatal

    async def drain(self) -> None:
        """Start nothing more, let callbacks run for `drain_timeout`, cancel the rest, send what is to be sent; return.

        Keys of cancelled callbacks are released. What does not end 3 s after it was cancelled is left to its lease.
        """
        self.begin_drain()
        if self._dispatching is not None:
            await asyncio.wait((self._dispatching,))

    def begin_drain(self) -> None:
        """What `drain` does, without waiting for it."""
        self.health.draining = True
        self._ending = True
        self._wake()

    def stop(self) -> None:
        """Drain, but cancel the callbacks at once."""
        self._in_a_hurry = True
        self.begin_drain()

    async def __aenter__(self) -> Self:
        self._start()
        return self

    async def __aexit__(self, exc_type: object, *exc_info: object) -> None:
        if exc_type is None:
            self.begin_drain()
        else:
            self.stop()
        await self.run()

    def _start(self) -> asyncio.Task[None]:
        if self._dispatching is None:
            self._dispatching = asyncio.get_running_loop().create_task(self._dispatch())
        return self._dispatching

    async def _dispatch(self) -> None:
        log.info("dispatching, %d at a time", self.setup.settings.concurrency, extra=self._extra)
        async with self._attempts:
            try:
                while not self._over:
                    await self._iterate()
                self.health.ended()  # nobody expects it to move while it drains
            except asyncio.CancelledError:
                self._in_a_hurry = True  # the event loop is being torn down
                raise
            except Exception as error:  # who dispatches beside a block learns of it only at the block's end
                log.exception("the dispatcher ends: %s", error, extra=self._extra)
                self.health.died(error)
                raise
            finally:
                await self._wind_down()
        log.info("stopped", extra=self._extra)

    async def _iterate(self) -> None:
        """Fill the free slots, then sleep until there may be something to do."""
        if self._outage.is_on():
            await self._nap(self._attempts.look_at_target())
        try:
            self._steps.ask(self._startable())
            leased, is_short = await self._steps.take()
            self.metrics.rounds["failed" if leased.errors else "ok"] += 1
            await self._begin(leased)
            self.health.iterated()
            if not self._steps:
                await self._rest(leased, is_short=is_short)
        except StoreError as error:
            self.metrics.rounds["failed"] += 1
            if not self._steps:  # else the next one says so too, or that it is over
                await self._pause(error)

    async def _rest(self, leased: Leased, *, is_short: bool) -> None:
        """Until there may be something to do, after the last lease step that was asked for."""
        if leased.errors and not leased.started:  # there may be keys to start, so that `wait` would not
            await self._pause(leased.errors[-1])
        elif not self._startable():
            await self._sleep_full()
        elif is_short:
            await self._wait(self.setup.settings.concurrency)

    @property
    def _over(self) -> bool:
        return self._ending or self._attempts.fatal is not None

    @property
    def _room(self) -> int:
        """Slots that are free for a lease step that is asked for now."""
        return max(self.setup.settings.concurrency - self._attempts.taken - self._steps.slots, 0)

    def _startable(self) -> int:
        return self._outage.starts(self._room, self.setup.clock.steady_us())

    async def _begin(self, leased: Leased) -> None:
        if self._over:  # since the lease step was under way
            self._attempts.release(leased.started)
        elif leased.started:
            self._attempts.begin(leased.started)
            await asyncio.sleep(0)  # they begin before this looks for more
        self._note_errors([*leased.errors, *self._attempts.take_errors()])

    def _note_errors(self, errors: Sequence[Exception]) -> None:
        if errors:
            self.health.store_failed(errors[-1])
        else:
            if self._pause_seconds:
                log.warning("the store answers again; starts resume", extra=self._extra)
                self._pause_seconds = 0.0
            self.health.store_answered()

    async def _sleep_full(self) -> None:
        """No slot is free, or the target is down: until an attempt ends, a probe is due, or the poll period."""
        if self._over:  # since the lease step was under way, when nobody slept who could be woken
            return
        poll_seconds = self.setup.settings.poll_period.total_seconds()
        probe_us = self._outage.probe_in_us(self.setup.clock.steady_us()) if self._room else None
        if probe_us is None:
            await self._attempts.change(poll_seconds)
            return
        looks = self._outage.wants_others()
        reconnected = asyncio.ensure_future(self._outage.connected())
        reconnected.add_done_callback(lambda _: self._attempts.poke())
        try:
            await self._attempts.change(min(poll_seconds, probe_us / 1e6, _LOOK_SECONDS if looks else poll_seconds))
        finally:
            reconnected.cancel()
            await asyncio.wait((reconnected,))

    async def _wait(self, concurrency: int) -> None:
        """Until there may be a key to start."""
        cut_short = await self._nap(self.setup.queue.wait(self.setup.settings.poll_period, concurrency))
        if self._over and not cut_short:  # woken, perhaps alone, for a key that is not for us any more
            await lease_keys(self.setup, 0)  # which ends with waking somebody else

    async def _pause(self, error: Exception) -> None:
        """The store failed: running attempts go on, starts wait, longer each time."""
        self.health.store_failed(error)
        self.health.iterated()
        # Never longer than the poll period, or a store that is down for a while would get a live process restarted.
        longest = max(self.setup.settings.poll_period.total_seconds(), _FIRST_PAUSE_SECONDS)
        self._pause_seconds = min(max(self._pause_seconds * 2, _FIRST_PAUSE_SECONDS), longest)
        log.error("the store failed, next try in %.0f s: %s", self._pause_seconds, error, extra=self._extra)
        await self._nap(self.setup.clock.sleep(self._pause_seconds))

    async def _nap(self, waiting: Coroutine[Any, Any, None]) -> bool:
        """Await what may be cancelled without harm, and is when the loop is to end; returns whether it was.

        Here and not in a task of its own, which would come between a wake-up and the start that it is for.
        """
        if self._over:
            waiting.close()
            return False
        try:
            async with asyncio.timeout(None) as self._napping:
                await waiting
        except TimeoutError:
            if self._napping is None or not self._napping.expired():
                raise
            return True
        finally:
            self._napping = None
        return False

    def _wake(self) -> None:
        self._attempts.poke()
        if self._napping is not None and not self._napping.expired():
            self._napping.reschedule(asyncio.get_running_loop().time())

    async def _wind_down(self) -> None:
        self.health.draining = True
        await self._take_back()
        await self._let_run_out()
        await self._attempts.end()
        if self.setup.errors is not None:
            await self.setup.errors.flush(FLUSH_TIMEOUT)
            await self.setup.errors.give_up()

    async def _take_back(self) -> None:
        """Release what lease steps start that are under way at the end: nobody else knows of it."""
        while self._steps:
            try:
                leased, _ = await self._steps.take()
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it ends anyway
                log.debug("a lease step under way at the end failed: %r", error, extra=self._extra)
            else:
                self._attempts.release(leased.started)

    async def _let_run_out(self) -> None:
        """Give running callbacks the time to end by themselves, unless `stop` was called."""
        clock = self.setup.clock
        until_us = clock.steady_us() + duration_us(self.setup.settings.drain_timeout)
        while self._attempts and not self._in_a_hurry and (left_us := until_us - clock.steady_us()) > 0:
            await self._attempts.change(left_us / 1e6)

    @property
    def _extra(self) -> dict[str, str]:
        return {"queue": self.metrics.name}


async def run_until_signalled(dispatcher: Dispatcher, beside: Drains | None = None) -> None:
    """Run `dispatcher` until a signal drains it; a second signal cancels what still runs.

    Args:
        dispatcher: its `run` is awaited here.
        beside: what else runs in the process, such as a trigger's rounds; drained at the same time.
    """
    drains: list[asyncio.Task[None]] = []

    def end() -> None:
        dispatcher.begin_drain()
        if beside is not None:
            drains.append(asyncio.get_running_loop().create_task(beside.drain()))

    def hurry() -> None:
        dispatcher.stop()
        if beside is not None:
            beside.hurry()

    with until_signalled(end, hurry):
        await dispatcher.run()
        await asyncio.gather(*drains)

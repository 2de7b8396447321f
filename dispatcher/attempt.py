"""Stages 4-6: the attempts under way in this process: each calls the callback for one key and settles the result.

An attempt is one task. Nobody but us holds it, and we cancel it only while its callback runs, so a settle is never cut
short: that is cheaper than a shield and leaves no gap. Who is cancelled (a round, the loop) tells its attempts to stop
and waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, Self

from dispatcher.blocked import LoopWatch
from dispatcher.callback import LeasedAttempt
from dispatcher.outage import Outage
from dispatcher.running import END_GRACE, Phase, Running, Why
from dispatcher.settle import Settling
from dispatcher.setup import Setup
from dispatcher.waiting import to_the_end
from workqueue.clock import duration_us, wait_first
from workqueue.interface import OwnedInProgressKey
from workqueue.metrics import SettleOutcome
from workqueue.outcomes import QueueKeys, RequeueAfter
from workqueue.telemetry.tracing import NO_TRACER, attempt_tracer

__all__ = ["Attempts"]

log = logging.getLogger(__name__)

_END_US = duration_us(timedelta(seconds=3))
_WATCH_US = duration_us(timedelta(milliseconds=100))
_NEVER_US = 10**15


class Attempts:
    """The attempts of one round or one loop. An async context manager, which owns the watch over their run times.

    Args:
        setup: what to call and how.
        outage: told of calls that could not be made, where somebody acts on it.
        patient: whether a settle waits for a store that is down, as long as the lease lives.
        on_fatal: called when `fatal` is set.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        outage: Outage | None = None,
        patient: bool = False,
        on_fatal: Callable[[], None] | None = None,
    ) -> None:
        self.fatal: BaseException | None = None
        """A KeyboardInterrupt. A SystemExit fails its attempt only, or one key could end every process there is."""

        self._setup = setup
        self._on_fatal = on_fatal or self.poke
        self._clock = setup.clock
        self._callback = setup.callback
        self._max_run_us = duration_us(setup.settings.max_run_time)
        self._tracer = attempt_tracer(setup.metrics.name)
        self._outage = outage
        self._settling = Settling(setup, outage, patient=patient)
        self._running: dict[OwnedInProgressKey, Running] = {}
        self._loop_watch = LoopWatch(self._running, setup.clock, setup.metrics.name)
        self._change: asyncio.Future[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._loop_watch.stop()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait((self._watch,))

    def __len__(self) -> int:
        """How many local slots are taken, by runaway callbacks too."""
        return len(self._running)

    def take_errors(self) -> list[Exception]:
        """What went wrong in the store at settling, since this was last asked."""
        taken = self._settling.errors[:]
        self._settling.errors.clear()
        return taken

    def start(self, started: Iterable[OwnedInProgressKey]) -> None:
        """Call the callback for each key."""
        loop, now_us = asyncio.get_running_loop(), self._clock.steady_us()
        deadline_us, began = now_us + self._max_run_us, self._setup.metrics.began
        attempt = self._attempt if self._tracer is NO_TRACER else self._traced_attempt
        tell = log.isEnabledFor(logging.DEBUG)
        for owned in started:
            if tell:
                log.debug("key %r started, attempt %d", owned.key, owned.attempts, extra=self._extra(owned))
            running = self._running[owned] = Running(self._clock, deadline_us)
            began(owned, now_us)
            # Not loop.create_task: a task factory that starts tasks eagerly would run the callback inside this loop.
            running.task = asyncio.Task(attempt(owned, running), loop=loop)
            owned.lost.subscribe(running.lose)
        if self._watch is None:
            self._watch = loop.create_task(self._watch_over())
            self._loop_watch.start()

    async def release(self, started: Iterable[OwnedInProgressKey]) -> None:
        """Hand back keys that were started but are not to be called."""
        await asyncio.gather(*[self._settling.release(owned) for owned in started])

    def stop(self) -> None:
        """Cancel every callback; keys whose callbacks end by that are released."""
        for running in self._running.values():
            running.stop(Why.SHUTDOWN)

    async def end(self) -> None:
        """Cancel every callback and wait for it, but not for ever; what still runs then is left to its lease."""
        self.stop()
        until_us = self._clock.steady_us() + _END_US
        while self._running and (left_us := until_us - self._clock.steady_us()) > 0:
            await self.change(left_us / 1e6)
        for owned, running in self._running.items():
            self._abandon(owned, running)
            running.cancel()
        await asyncio.sleep(0)  # a second cancellation may do
        for running in self._running.values():
            # asyncio.run would wait for it, and it may ignore cancellations for ever; we have been patient enough.
            asyncio._unregister_task(running.task)

    def poke(self) -> None:
        """Wake who waits in `change`."""
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    async def change(self, seconds: float | None = None) -> None:
        """Return when an attempt has ended, at a `poke`, or after `seconds`. One waiter at a time."""
        self._change = asyncio.get_running_loop().create_future()
        if seconds is None:
            await self._change
        else:
            await wait_first(self._clock, self._change, seconds)

    async def _attempt(self, owned: OwnedInProgressKey, running: Running) -> None:
        result = await self._call(owned, running)
        await self._settle(owned, running, result)

    async def _traced_attempt(self, owned: OwnedInProgressKey, running: Running) -> None:
        try:
            traced = self._tracer.attempt(owned.key, owned)
        except Exception:
            log.exception("no span could be made for key %r", owned.key, extra=self._extra(owned))
            return await self._attempt(owned, running)
        with traced as span:
            result = await self._call(owned, running)
            outcome = await self._settle(owned, running, result)
            failed = isinstance(result, BaseException) and not isinstance(result, RequeueAfter | QueueKeys)
            span.ended(outcome, result if failed else None)
            result = None  # an error's traceback holds this frame
        return None

    async def _call(self, owned: OwnedInProgressKey, running: Running) -> Any:
        if running.why is not None:  # stopped before it began
            return asyncio.CancelledError()
        running.phase = Phase.CALLING
        try:
            return await self._callback(owned.key, LeasedAttempt(owned, running))
        except BaseException as error:  # noqa: BLE001 - whatever a callback raises decides about its key only
            return error

    async def _settle(self, owned: OwnedInProgressKey, running: Running, result: object) -> SettleOutcome:
        running.phase = Phase.SETTLING
        try:
            if running.cancelled_by_others:
                return await self._settle_apart(owned, running, result)
            return await self._settling.settle(owned, running, result)
        except asyncio.CancelledError:  # the event loop is being torn down: better recovered than kept for ever
            owned.abandon()
            raise
        except Exception:  # a bug of ours or of a backend: its key must not stay leased for ever
            log.exception("settling key %r failed", owned.key, extra=self._extra(owned))
            owned.abandon()
            return "unsettled"
        finally:
            self._end(owned, running, result)

    async def _settle_apart(self, owned: OwnedInProgressKey, running: Running, result: object) -> SettleOutcome:
        """Settle in a task that nobody has cancelled; a cancellation not yet delivered to ours would cut it short."""
        settling = asyncio.get_running_loop().create_task(self._settling.settle(owned, running, result))
        with contextlib.suppress(asyncio.CancelledError):
            await to_the_end(settling)
        return settling.result()

    def _end(self, owned: OwnedInProgressKey, running: Running, result: object) -> None:
        del self._running[owned]
        if running.runaway:
            self._setup.metrics.runaway_callbacks -= 1
            log.warning("the runaway callback of key %r has ended", owned.key, extra=self._extra(owned))
        if isinstance(result, KeyboardInterrupt):
            message = "the callback of key %r raised KeyboardInterrupt: this dispatcher ends"
            log.error(message, owned.key, extra=self._extra(owned))
            self.fatal = result
            self._on_fatal()
        if self._change is not None:
            self.poke()

    async def _watch_over(self) -> None:
        """Cancel callbacks that run too long, and give up on those that then do not end."""
        # No attempt that begins while this sleeps is due before it wakes, unless run times are very short indeed.
        longest_us = max(min(self._max_run_us, duration_us(END_GRACE)), _WATCH_US)
        while True:
            due_us = self._check_deadlines()
            await self._clock.sleep(min(due_us, longest_us) / 1e6)

    def _check_deadlines(self) -> int:
        """Act on what is due by now; returns in how many microseconds the next one will be."""
        now_us, next_us = self._clock.steady_us(), _NEVER_US
        for owned, running in self._running.items():
            if running.abandoned or running.phase is Phase.SETTLING:
                continue
            if now_us >= running.deadline_us:
                self._overdue(owned, running)
            next_us = min(next_us, max(running.deadline_us - now_us, _WATCH_US))
        return next_us

    def _overdue(self, owned: OwnedInProgressKey, running: Running) -> None:
        if running.why is None:
            running.stop(Why.TIMED_OUT)
        else:
            self._abandon(owned, running)

    def _abandon(self, owned: OwnedInProgressKey, running: Running) -> None:
        """Leave the lease of an attempt that does not end to lapse; a callback that runs on keeps its slot."""
        if running.abandoned:
            return
        running.abandoned = True
        owned.abandon()
        extra = self._extra(owned)
        if running.phase is Phase.SETTLING:
            log.error("key %r is left unsettled: the store does not answer", owned.key, extra=extra)
            return
        running.runaway = True
        owned.lost.set()  # its answer will be ignored; a thread has no other way to hear of it
        self._setup.metrics.runaway_callbacks += 1
        if self._outage is not None:
            self._outage.unanswered()  # else starts would stay paused until a probe that hangs comes back
        why = running.why.value if running.why else "?"
        log.error("the callback of key %r was cancelled because %s, and still runs", owned.key, why, extra=extra)

    def _extra(self, owned: OwnedInProgressKey) -> dict[str, str]:
        return {"key": owned.key, "queue": self._setup.metrics.name}

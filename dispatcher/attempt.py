"""The attempts under way in this process: each calls the callback for one key and settles the result.

An attempt is one task, which nobody can cancel but while its callback runs, so a settle is never cut short: that is
cheaper than a shield and leaves no gap. Who is cancelled (a round, the loop) asks its attempts to stop
and waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Self, cast

from dispatcher.blocked import LoopWatch
from dispatcher.callback import LeasedAttempt
from dispatcher.overdue import RunTimes
from dispatcher.running import AttemptTask, CallbackRun
from dispatcher.settle import Settling
from dispatcher.setup import Setup
from dispatcher.waiting import to_the_end
from workqueue.clock import duration_us, wait_first
from workqueue.errors import StoreError
from workqueue.exits import exits_contained
from workqueue.interface import OwnedInProgressKey
from workqueue.metrics import SettleOutcome
from workqueue.optional import PipelinedQueue, offers
from workqueue.outcomes import QueueKeys, RequeueAfter
from workqueue.raised import as_one
from workqueue.telemetry.tracing import NO_TRACER, AttemptSpan, attempt_tracer

__all__ = ["Attempts"]

log = logging.getLogger(__name__)

_END_US = duration_us(timedelta(seconds=3))
_Settle = Callable[[CallbackRun, object], Coroutine[Any, Any, object] | None]
_LIMITED = timedelta(seconds=1)  # as exact as run times and deadlines of single keys are kept


class Attempts:
    """The attempts of one round or one loop. An async context manager, which owns the watches over them.

    Args:
        setup: what to call and how.
        lasting: whether these are a loop's, which waits for the store as long as leases live; a round ends some time.
        on_fatal: called when `fatal` is set.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        lasting: bool = False,
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
        self._outage = setup.outage
        self._settling = Settling(setup, self._completed, lasting=lasting)
        self._runs: dict[OwnedInProgressKey, CallbackRun] = {}
        shortest = setup.settings.max_run_time if setup.limits is None else _LIMITED
        self._run_times = RunTimes(self._runs, setup.clock, shortest, self._leave)
        self._loop_watch = LoopWatch(self._runs, setup.clock, setup.metrics.name)
        self._change: asyncio.Future[None] | None = None
        self._completing = 0  # how many wait for the store's answer to `complete_soon`, and for nothing else
        self._is_pipelined = offers(setup.queue, PipelinedQueue)
        self._contained = exits_contained()

    async def __aenter__(self) -> Self:
        owner = asyncio.current_task()
        assert owner is not None
        self._owner, self._loop = owner, owner.get_loop()
        self._contained.__enter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._contained.__exit__(None, None, None)
        self._loop_watch.stop()
        await self._run_times.stop()

    def __len__(self) -> int:
        """How many are under way, runaway callbacks too."""
        return len(self._runs)

    @property
    def taken(self) -> int:
        """How many local slots a lease step finds taken that is asked for now; those of runaway callbacks too."""
        return len(self._runs) - (self._completing if self._is_pipelined else 0)

    def take_errors(self) -> list[Exception]:
        """What went wrong in the store at settling, since this was last asked."""
        taken = self._settling.errors[:]
        self._settling.errors.clear()
        return taken

    @property
    def unreached(self) -> int:
        """How many keys were released because the target could not be called for them."""
        return self._settling.unreached

    async def look_at_target(self) -> None:
        """While the target is down: see whether the probe was taken, and ask the target itself, if it can be."""
        now_us = self._clock.steady_us()
        self._settling.look_at_probe(now_us)
        await self._outage.ask(now_us)
        if self._outage.wants_others():
            with contextlib.suppress(StoreError):  # the next lease step says so
                self._outage.others_wait((await self._setup.queue.counts()).queued, now_us)

    def begin(self, started: Sequence[OwnedInProgressKey]) -> None:
        """Call the callback for each key, or while the target is down for one of them; the others are handed back."""
        if not self._outage.is_on():
            self._start(started)
            return
        now_us = self._clock.steady_us()
        probe = self._outage.probe_of([owned.key for owned in started], now_us)
        if probe is not None:
            self._outage.begins(probe, now_us)
            self._start([owned for owned in started if owned.key == probe])
        self.release([owned for owned in started if owned.key != probe])

    def _start(self, started: Collection[OwnedInProgressKey]) -> None:
        loop, now_us, wall_us = self._loop, self._clock.steady_us(), self._clock.wall_us()
        deadline_us, sent, owner = now_us + self._max_run_us, self._outage.answers, self._owner
        limits, settings = self._setup.limits, self._setup.settings
        attempt = self._attempt if self._tracer is NO_TRACER else self._traced_attempt
        settle = self._settle_soon
        debug, reports = log.isEnabledFor(logging.DEBUG), self._settling.reports
        reports_starts = reports.wants_starts
        self._setup.metrics.began(started, now_us, wall_us)
        for owned in started:
            if debug:
                log.debug("key %r started, attempt %d", owned.key, reports.attempts_of(owned), extra=self._extra(owned))
            if limits is None:
                run = CallbackRun(owned, self._clock, settings, deadline_us)
            else:
                run = limits.run(owned, now_us)
            self._runs[owned] = run
            run.sent, run.owner = sent, owner
            if reports_starts:
                reports.started(owned, wall_us)
            # Not loop.create_task: a task factory that starts tasks eagerly would run the callback inside this loop.
            run.begin(AttemptTask(attempt(run, settle), loop=loop, name=owned.key))
        self._run_times.start()
        self._loop_watch.start()

    def release(self, started: Iterable[OwnedInProgressKey]) -> None:
        """Hand back keys that were started but are not to be called, each in an attempt that waits for the store."""
        now_us = self._clock.steady_us()
        for owned in started:
            run = self._runs[owned] = CallbackRun(owned, self._clock, self._setup.settings, now_us + self._max_run_us)
            run.owner = self._owner
            run.stop("it is not to be called")
            run.begin(self._apart(run, partial(self._settling.release, run)))

    def stop(self) -> None:
        """Cancel every callback; keys whose callbacks end by that are released."""
        for run in self._runs.values():
            run.stop("the dispatcher is stopping")

    async def end(self) -> None:
        """Cancel every callback and wait for it, but not for ever; what still runs then is left to its lease."""
        self.stop()
        until_us = self._clock.steady_us() + _END_US
        while self._runs and (left_us := until_us - self._clock.steady_us()) > 0:
            await self.change(left_us / 1e6)
        for run in self._runs.values():
            self._leave(run)
            if run.stage == "runaway":
                run.cancel()  # a second cancellation may do
        await asyncio.sleep(0)
        for run in self._runs.values():
            # asyncio.run would wait for it, and it may ignore cancellations for ever; we have been patient enough.
            asyncio._unregister_task(run.task)

    def poke(self) -> None:
        """Wake who waits in `change`."""
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    async def change(self, seconds: float | None = None) -> None:
        """Return when an attempt has ended, at a `poke`, or after `seconds`. One waiter at a time."""
        self._change = asyncio.get_running_loop().create_future()
        if seconds is None:
            await self._change
        else:
            await wait_first(self._clock, self._change, seconds)

    async def _attempt(self, run: CallbackRun, settle: _Settle) -> None:
        if run.stage != "to call" or run.lost.is_set():  # stopped before it began, or started too late
            settling = settle(run, asyncio.CancelledError())
        else:
            run.stage = "calling"
            try:
                result = await self._callback(run.owned.key, LeasedAttempt(run))
            except BaseException as error:  # noqa: BLE001 - whatever a callback raises decides about its key only
                settling = settle(run, as_one(error))  # in no local of ours: its traceback holds this frame
            else:
                settling = settle(run, result)
        if settling is not None:
            await settling

    def _settle_soon(self, run: CallbackRun, result: object) -> Coroutine[Any, Any, SettleOutcome] | None:
        """Settle; None if nobody need wait for it, as after nearly every attempt."""
        if result is None and run.why is None:
            run.stage = "settling"
            self._completing += 1
            if self._is_pipelined and self._change is not None:
                self.poke()  # before the settle, so that a lease step for its slot can leave together with it
            if self._settling.complete_soon(run):
                return None
            self._completing -= 1
        return self._settle(run, result)

    def _completed(self, run: CallbackRun, error: Exception | None) -> None:
        self._completing -= 1
        if error is None:
            self._free(run)
        else:  # nobody can be waited for here
            run.go_on(self._apart(run, partial(self._settling.complete_again, run, error)))

    def _apart(self, run: CallbackRun, step: Callable[[], Awaitable[None]]) -> AttemptTask:
        """Take the step that ends `run` in a task of its own."""
        return AttemptTask(self._ended_by(run, step), loop=self._loop, name=run.owned.key)

    async def _ended_by(self, run: CallbackRun, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except BaseException:  # the event loop is being torn down: better recovered than kept for ever
            run.owned.abandon()
            raise
        finally:
            self._end(run, None)

    async def _traced_attempt(self, run: CallbackRun, settle: _Settle) -> None:
        try:
            traced = self._tracer.attempt(run.owned.key, run.owned)
        except Exception:
            log.exception("no span could be made for key %r", run.owned.key, extra=self._extra(run.owned))
            await self._attempt(run, settle)
            return
        with traced as span:
            await self._attempt(run, partial(self._settle_traced, span))

    async def _settle_traced(self, span: AttemptSpan, run: CallbackRun, result: Any) -> None:
        outcome = await self._settle(run, result)
        failed = issubclass(kind := type(result), BaseException) and not issubclass(kind, RequeueAfter | QueueKeys)
        span.ended(outcome, result if failed else None)

    async def _settle(self, run: CallbackRun, result: object) -> SettleOutcome:
        if run.stage != "runaway":
            run.stage = "settling"
        try:
            if run.is_cancelled_by_others:
                return await self._settle_apart(run, result)
            return await self._settling.settle(run, result)
        except Exception:  # a bug of ours or of a backend: its key must not stay leased for ever
            log.exception("settling key %r failed", run.owned.key, extra=self._extra(run.owned))
            run.owned.abandon()
            return "unsettled"
        except BaseException:  # the event loop is being torn down: better recovered than kept for ever
            run.owned.abandon()
            raise
        finally:
            self._end(run, result)

    async def _settle_apart(self, run: CallbackRun, result: object) -> SettleOutcome:
        """Settle in a task that nobody has cancelled; a cancellation not yet delivered to ours would cut it short."""
        settling = asyncio.get_running_loop().create_task(self._settling.settle(run, result))
        with contextlib.suppress(asyncio.CancelledError):
            await to_the_end(settling)
        return settling.result()

    def _end(self, run: CallbackRun, result: object) -> None:
        owned = run.owned
        if run.stage == "runaway":
            self._setup.metrics.runaway_callbacks -= 1
            log.warning("the runaway callback of key %r has ended", owned.key, extra=self._extra(owned))
        if issubclass(type(result), KeyboardInterrupt):  # isinstance asks the object, and raises what that raises
            message = "the callback of key %r raised KeyboardInterrupt: this dispatcher ends"
            log.error(message, owned.key, extra=self._extra(owned))
            self.fatal = cast("KeyboardInterrupt", result)
            self._on_fatal()
        self._free(run)

    def _free(self, run: CallbackRun) -> None:
        """Give its slot back."""
        del self._runs[run.owned]
        run.forget()
        if self._change is not None:
            self.poke()

    def _leave(self, run: CallbackRun) -> None:
        """Leave the lease of an attempt that does not end to lapse; a callback that runs on keeps its slot."""
        if run.is_left:
            return
        run.leave()
        owned, extra = run.owned, self._extra(run.owned)
        if run.stage == "unsettled":
            log.error("key %r is left unsettled: the store does not answer", owned.key, extra=extra)
            return
        run.lost.set()  # its answer will be ignored; a thread has no other way to hear of it
        self._setup.metrics.runaway_callbacks += 1
        self._outage.unanswered(owned.key)  # else starts would be held until a probe that hangs comes back
        log.error("the callback of key %r was cancelled because %s, and still runs", owned.key, run.why, extra=extra)

    def _extra(self, owned: OwnedInProgressKey) -> dict[str, str]:
        return {"key": owned.key, "queue": self._setup.metrics.name}

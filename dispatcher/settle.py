"""Stage 6: settling one attempt: decide, write, count, report. What is decided is in `decision`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar

from dispatcher.decision import COMPLETE, LEAVE, LOST, RELEASE, UNREACHED, Decision, decide
from dispatcher.outage import TargetSilentError, TargetUnavailableError
from dispatcher.report import Reports
from dispatcher.running import CallbackRun, End
from dispatcher.setup import Setup
from workqueue.clock import LATEST_US, duration_us, from_us
from workqueue.errors import StoreError, WorkQueueError
from workqueue.handles import Owned
from workqueue.interface import OwnedInProgressKey
from workqueue.lease import DEFAULT_LEASE
from workqueue.metrics import SettleOutcome
from workqueue.optional import CompletingQueue, offers
from workqueue.options import Options
from workqueue.outcomes import QueueKey
from workqueue.safe_text import describe, leaves_of
from workqueue.telemetry.tracing import with_trace

__all__ = ["Settling"]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_NO_ANSWER = (TargetUnavailableError, TargetSilentError)
_FOR_EVER_US = 2**63
_BUG_PATIENCE_US = DEFAULT_LEASE.duration_us  # for what is no error of ours: a bug would hold its key for ever


class Settling:
    """Ends attempts in the store.

    Args:
        setup: the queue, the rules, where to report.
        completed: called once for each that `complete_soon` completes, perhaps before that returns: with None when the
            key is settled, with an error when it is not, and `complete_again` is to be awaited.
        lasting: try again for as long as the lease lives, whatever the store says. Else for as long as it would live if
            it were not renewed: a round is waited for.
    """

    def __init__(
        self, setup: Setup, completed: Callable[[CallbackRun, Exception | None], None], *, lasting: bool
    ) -> None:
        self.errors: list[Exception] = []
        """What went wrong in the store, for the round to raise or the loop to note; who reads it clears it."""

        self.unreached = 0
        """How many keys were released because the target could not be called for them."""

        self._ended = completed
        self._queue = setup.queue
        self._completing = setup.queue if offers(setup.queue, CompletingQueue) else None
        self.reports = Reports(setup.metrics.name, setup.errors, setup.limits)
        """Where ends are reported; starts are too, by who starts."""

        self._metrics = setup.metrics
        self._clock = setup.clock
        self._outage = setup.outage
        lease_us = setup.renewer.times.duration_us if setup.renewer else DEFAULT_LEASE.duration_us
        self._patience_us = _FOR_EVER_US if lasting else lease_us

    async def settle(self, run: CallbackRun, result: object) -> SettleOutcome:
        """End the attempt whose callback returned or raised `result`; raises nothing but cancellation."""
        try:
            decision = self._decision(run, result)
        except Exception as error:  # noqa: BLE001 - what was raised runs a user's own code when it is looked at
            failed = RuntimeError(f"what the callback raised cannot be read: {describe(error)}")
            decision = self._decision(run, failed)
        if decision.keys:
            decision = await self._store_keys(run, decision)
        outcome = await self._apply(run, decision)
        self._report(run, decision, outcome, result)
        return outcome

    def complete_soon(self, run: CallbackRun) -> bool:
        """Settle what nearly every attempt is, a callback that returned None, without a task that waits for the store.

        That saves three coroutines, a future and a step of the task for each key: a seventh of the CPU of a drain.

        Args:
            run: its callback returned None, and nobody asked it to end.

        Returns:
            Whether it does; if not, `settle` is to be awaited.
        """
        if self._completing is None or type(run.owned) is not Owned:  # a handle of somebody else's goes its own way
            return False
        try:
            self._note_answer(run)
            self._completing.complete_soon(run.owned, partial(self._completed, run))
        except Exception as error:  # noqa: BLE001 - as in _apply
            self._ended(run, error)
        return True

    def _completed(self, run: CallbackRun, answer: bool | Exception) -> None:
        if answer is True or answer is False:
            self._report(run, COMPLETE, "completed" if answer else "lost", None)
            self._ended(run, None)
        else:
            self._ended(run, answer)

    async def complete_again(self, run: CallbackRun, error: Exception) -> None:
        """Go on after `complete_soon` has failed with `error`; raises nothing but cancellation."""
        self._report(run, COMPLETE, await self._apply_again(run, COMPLETE, error), None)

    def _decision(self, run: CallbackRun, result: object) -> Decision:
        end = run.end(result)
        if result is None and end == "answered":  # nearly always
            self._note_answer(run)
            return COMPLETE
        if self._is_unreached(run, end, result):
            return UNREACHED
        return decide(end, result, run.owned.attempts, run.settings)

    def _report(self, run: CallbackRun, decision: Decision, outcome: SettleOutcome, result: object) -> None:
        owned = run.owned
        try:
            self._metrics.settled(outcome, owned, self._clock.steady_us())
            self.reports.settled(owned, decision, outcome, self._clock)
            if decision.failure is not None:
                self.reports.explain(owned.key, result)
        except Exception as error:  # noqa: BLE001 - the key is settled, whoever cannot hear of it
            extra = {"key": owned.key, "queue": self._metrics.name}
            log.error("the end of key %r could not be reported: %s", owned.key, describe(error), extra=extra)

    async def release(self, run: CallbackRun) -> None:
        """Hand a key back that was started but not called; raises nothing but cancellation."""
        self._metrics.outcomes[await self._apply(run, RELEASE)] += 1

    def look_at_probe(self, now_us: int) -> None:
        """End the outage if the target has taken its probe."""
        ended = self._outage.taken(now_us)
        if ended is not None:
            self.reports.outage_ended(ended)

    def _is_unreached(self, run: CallbackRun, end: End, result: object) -> bool:
        """Note what this end says of the target; returns whether the key was not called because the target is down."""
        outage = self._outage
        if end != "answered" or isinstance(result, TargetSilentError):
            outage.unanswered(run.owned.key)
        elif isinstance(result, TargetUnavailableError):
            return self._is_released_for(run, result)
        elif isinstance(result, BaseExceptionGroup) and any(isinstance(leaf, _NO_ANSWER) for leaf in leaves_of(result)):
            outage.put_off(run.owned.key, self._clock.steady_us())  # one call of several failed, which says nothing
        else:
            self._note_answer(run)
        return False

    def _note_answer(self, run: CallbackRun) -> None:
        """The target answered, which may end an outage."""
        outage = self._outage
        outage.answers += 1
        if outage.in_doubt:
            ended = outage.answered(run.owned.key, self._clock.steady_us())
            if ended is not None:
                self.reports.outage_ended(ended)

    def _is_released_for(self, run: CallbackRun, error: TargetUnavailableError) -> bool:
        owned, now_us = run.owned, self._clock.steady_us()
        last = 0 < run.settings.max_retry <= owned.attempts
        verdict = self._outage.failed(owned.key, error, run.sent, now_us, last=last)
        if verdict.began:
            self.reports.outage_began(error)
        self.unreached += verdict.is_released
        return verdict.is_released

    async def _store_keys(self, run: CallbackRun, decision: Decision) -> Decision:
        """Store the keys that the attempt asked for; only then may it complete, so that none can be forgotten."""
        now_us = self._clock.wall_us()
        try:
            store = partial(self._queue.queue_many, [(asked.key, _options(asked, now_us)) for asked in decision.keys])
            try:
                await store()
            except Exception as error:  # noqa: BLE001 - as in _apply
                await self._again(run, error, store)
        except Exception as error:  # noqa: BLE001 - fails the attempt as if it had raised this
            return decide("left" if run.is_left else "answered", error, run.owned.attempts, run.settings)
        return decision

    async def _apply(self, run: CallbackRun, decision: Decision) -> SettleOutcome:
        """Write what was decided; returns what came of it."""
        if decision is LOST:
            return "lost"
        if decision is LEAVE:
            run.owned.abandon()
            return "unsettled"
        try:
            applied = await _verb(run.owned, decision)
        except Exception as error:  # noqa: BLE001 - one key's trouble must not end the others
            return await self._apply_again(run, decision, error)
        return decision.outcome if applied else "lost"

    async def _apply_again(self, run: CallbackRun, decision: Decision, error: Exception) -> SettleOutcome:
        try:
            applied = await self._again(run, error, partial(_verb, run.owned, decision))
        except Exception as last:  # noqa: BLE001 - as in _apply
            return self._give_up(run.owned, last)
        return decision.outcome if applied else "lost"

    async def _again(self, run: CallbackRun, error: Exception, step: Callable[[], Awaitable[_T]]) -> _T:
        """Take a step that failed with `error` again, for as long as there is patience; raises its last error."""
        extra = {"key": run.owned.key, "queue": self._metrics.name}
        pause, began_us = _FIRST_PAUSE_SECONDS, self._clock.steady_us()
        while self._is_patient(run, error, began_us):
            log.warning("settling key %r failed, trying again: %s", run.owned.key, describe(error), extra=extra)
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
            try:
                return await step()
            except Exception as failed:  # noqa: BLE001 - as in _apply
                error = failed
        raise error

    def _is_patient(self, run: CallbackRun, error: Exception, began_us: int) -> bool:
        """Whether to try again: a store that refuses a user for a moment is no better than one that is down."""
        if run.owned.lost.is_set() or run.is_left:
            return False
        if isinstance(error, WorkQueueError) and not isinstance(error, StoreError):
            return False  # the call is wrong, or the queue is closed
        patience_us = self._patience_us if isinstance(error, StoreError) else _BUG_PATIENCE_US
        return self._clock.steady_us() - began_us < patience_us

    def _give_up(self, owned: OwnedInProgressKey, error: Exception) -> SettleOutcome:
        """The store failed: leave the key to its lease, so that somebody finds it."""
        self.errors.append(error)
        owned.abandon()
        extra = {"key": owned.key, "queue": self._metrics.name}
        message = "key %r could not be settled, and runs again once its lease has lapsed: %s"
        log.error(message, owned.key, describe(error), extra=extra)
        return "unsettled"


def _verb(owned: OwnedInProgressKey, decision: Decision) -> Awaitable[bool]:
    match decision.outcome:
        case "completed" | "dropped":
            return owned.complete()
        case "requeued":
            return owned.requeue(delay=decision.delay, floor=decision.floor)
        case "retried":
            return owned.requeue(backoff=decision.delay, error=decision.failure.error if decision.failure else "")
        case "dead-lettered" | "expired":
            return owned.dead_letter(decision.failure.error if decision.failure else "")
        case _:
            return owned.release()


def _options(asked: QueueKey, now_us: int) -> Options:
    delay = asked.delay or timedelta(0)
    not_before = from_us(min(now_us + duration_us(delay), LATEST_US)) if delay else None
    return with_trace(Options(priority=asked.priority, not_before=not_before, payload=asked.payload))

"""Stages 6-7: settling one attempt: decide, store, count, tell. What is decided is in `decision`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta

from dispatcher.decision import COMPLETE, RELEASE, Decision, decide
from dispatcher.error_events import error_event
from dispatcher.outage import Outage, TargetUnavailableError
from dispatcher.running import Running, Why
from dispatcher.setup import Setup
from dispatcher.threads import ThreadRunsOnError
from workqueue.clock import LATEST_US, duration_us, from_us
from workqueue.errors import StoreUnavailableError, WorkQueueError
from workqueue.interface import OwnedInProgressKey
from workqueue.metrics import SettleOutcome
from workqueue.options import Options
from workqueue.outcomes import QueueKey, QueueKeys, RequeueAfter
from workqueue.telemetry.tracing import with_trace

__all__ = ["Settling"]

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_LEVELS: dict[SettleOutcome, int] = {
    "completed": logging.DEBUG,
    "requeued": logging.INFO,
    "retried": logging.WARNING,
    "dead-lettered": logging.ERROR,
    "dropped": logging.WARNING,
    "released": logging.INFO,
    "lost": logging.WARNING,
    "unsettled": logging.ERROR,
}


class Settling:
    """Ends attempts in the store.

    Args:
        setup: the queue, the rules, whom to tell.
        outage: told whether calls reached the target.
        patient: try again for as long as the lease lives when the store is unavailable.
    """

    def __init__(self, setup: Setup, outage: Outage | None, *, patient: bool) -> None:
        self.errors: list[Exception] = []
        """What went wrong in the store, for the round to raise or the loop to note; who reads it clears it."""

        self._queue = setup.queue
        self._settings = setup.settings
        self._tell = setup.errors
        self._metrics = setup.metrics
        self._clock = setup.clock
        self._outage = outage
        self._patient = patient

    async def settle(self, owned: OwnedInProgressKey, running: Running, result: object) -> SettleOutcome:
        """End the attempt whose callback returned or raised `result`; raises nothing but cancellation."""
        decision = self._decide(owned, running, result)
        if decision.keys:
            decision = await self._store_keys(owned, decision)
        outcome = decision.outcome
        if outcome != "lost" and outcome != "unsettled":  # not `in`: this is the hot path
            outcome = await self._apply(owned, running, decision)
        now_us = self._clock.wall_us()
        self._metrics.settled(outcome, owned, self._clock.steady_us(), now_us)
        self._report(owned, decision, outcome, now_us)
        if decision.failure is not None:
            self._explain(owned, result)
        return outcome

    async def release(self, owned: OwnedInProgressKey) -> None:
        """Hand a key back that was started but not called."""
        try:
            applied = await owned.release()
        except asyncio.CancelledError:
            owned.abandon()
            raise
        except Exception as error:  # noqa: BLE001 - as in _apply
            self._give_up(owned, error)
        else:
            self._metrics.outcomes["released" if applied else "lost"] += 1

    def _decide(self, owned: OwnedInProgressKey, running: Running, result: object) -> Decision:
        if running.abandoned or isinstance(result, ThreadRunsOnError):
            owned.abandon()
            return self._unanswered(Decision("unsettled"))
        if owned.lost.is_set():
            return self._unanswered(Decision("lost"))
        if running.why is Why.TIMED_OUT:
            result = TimeoutError(f"the callback ran longer than max_run_time ({self._settings.max_run_time})")
        elif _was_cut_short(running, result):
            return self._unanswered(RELEASE)
        if self._outage is not None and self._tell_outage(self._outage, owned.key, result):
            return RELEASE
        if result is None:
            return COMPLETE
        return decide(result, owned.attempts, self._settings.max_retry, self._settings.chosen_backoff)

    def _unanswered(self, decision: Decision) -> Decision:
        if self._outage is not None:
            self._outage.unanswered()
        return decision

    def _tell_outage(self, outage: Outage, key: str, result: object) -> bool:
        """Note whether the call reached its target; returns whether the key is to be released because it did not."""
        if isinstance(result, TargetUnavailableError):
            return outage.unavailable(key, result, self._clock.steady_us())
        if outage.in_doubt:
            outage.reachable(key, self._clock.steady_us())
        return False

    async def _store_keys(self, owned: OwnedInProgressKey, decision: Decision) -> Decision:
        """Store the keys that the attempt asked for; only then may it complete, so that none can be forgotten."""
        now_us = self._clock.wall_us()
        try:
            await self._queue.queue_many([(asked.key, _options(asked, now_us)) for asked in decision.keys])
        except Exception as error:  # noqa: BLE001 - fails the attempt as if it had raised this
            return decide(error, owned.attempts, self._settings.max_retry, self._settings.chosen_backoff)
        return decision

    async def _apply(self, owned: OwnedInProgressKey, running: Running, decision: Decision) -> SettleOutcome:
        pause = _FIRST_PAUSE_SECONDS
        while True:
            try:
                return decision.outcome if await _verb(owned, decision) else "lost"
            except StoreUnavailableError as error:
                if not self._patient or owned.lost.is_set() or running.abandoned:
                    return self._give_up(owned, error)
                log.warning("settling key %r failed, trying again: %s", owned.key, error, extra=self._extra(owned))
            except Exception as error:  # noqa: BLE001 - one key's trouble must not end the others
                return self._give_up(owned, error)
            await self._clock.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _give_up(self, owned: OwnedInProgressKey, error: Exception) -> SettleOutcome:
        """The store failed: leave the key to its lease, so that somebody finds it."""
        self.errors.append(error)
        owned.abandon()
        log.error("key %r could not be settled: %s", owned.key, error, extra=self._extra(owned))
        return "unsettled"

    def _report(self, owned: OwnedInProgressKey, decision: Decision, outcome: SettleOutcome, now_us: int) -> None:
        failure = decision.failure
        if failure is not None and outcome == decision.outcome and self._tell is not None:
            self._tell.send(error_event(owned.key, owned.attempts, failure, now_us))
        level = _LEVELS[outcome]
        if log.isEnabledFor(level):
            detail = f", again in {decision.delay}" if decision.delay else ""
            cause = f": {failure.error}" if failure else ""
            message = "key %r %s at attempt %d%s%s"
            log.log(level, message, owned.key, outcome, owned.attempts, detail, cause, extra=self._extra(owned))

    def _explain(self, owned: OwnedInProgressKey, result: object) -> None:
        """Show where a callback raised what it did not mean to raise; an error of ours says all in its text."""
        if isinstance(result, BaseException) and not isinstance(result, WorkQueueError):
            log.info("where key %r failed:", owned.key, exc_info=result, extra=self._extra(owned))

    def _extra(self, owned: OwnedInProgressKey) -> dict[str, str]:
        return {"key": owned.key, "queue": self._metrics.name}


def _was_cut_short(running: Running, result: object) -> bool:
    """Whether the callback ended because the process is stopping, rather than by answering."""
    if running.why is Why.SHUTDOWN:
        return isinstance(result, BaseException) and not isinstance(result, RequeueAfter | QueueKeys)
    return isinstance(result, asyncio.CancelledError) and running.cancelled_by_others


def _verb(owned: OwnedInProgressKey, decision: Decision) -> Awaitable[bool]:
    match decision.outcome:
        case "completed" | "dropped":
            return owned.complete()
        case "requeued":
            return owned.requeue(delay=decision.delay, floor=decision.floor)
        case "retried":
            return owned.requeue(backoff=decision.delay)
        case "dead-lettered":
            return owned.dead_letter(decision.failure.error if decision.failure else "")
        case _:
            return owned.release()


def _options(asked: QueueKey, now_us: int) -> Options:
    delay = asked.delay or timedelta(0)
    not_before = from_us(min(now_us + duration_us(delay), LATEST_US)) if delay else None
    return with_trace(Options(priority=asked.priority, not_before=not_before, payload=asked.payload))

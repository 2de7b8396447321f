"""Stage 7: what an operator sees of attempts and orphans: a log line for each, an error event for each failure, and
lifecycle events for who asks.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from dispatcher.decision import UNREACHED, Decision, Failure
from dispatcher.error_events import ErrorEvents, error_event
from dispatcher.key_limits import KeyLimits
from dispatcher.lifecycle import State, StateChange, asked_for, state_of
from dispatcher.outage import IN_A_ROW, Ended, TargetUnavailableError
from workqueue.clock import Clock, from_us
from workqueue.errors import WorkQueueError
from workqueue.interface import OwnedInProgressKey
from workqueue.metrics import SettleOutcome
from workqueue.optional import RecoveredOrphan
from workqueue.safe_text import shown_duration

__all__ = ["Reports"]

log = logging.getLogger(__name__)

_OURS = tuple(str(Path(__file__).parents[1] / package) for package in ("dispatcher", "workqueue"))

_LEVELS: dict[SettleOutcome, int] = {
    "completed": logging.DEBUG,
    "requeued": logging.INFO,
    "retried": logging.WARNING,
    "dead-lettered": logging.ERROR,
    "expired": logging.ERROR,
    "dropped": logging.WARNING,
    "released": logging.INFO,
    "lost": logging.WARNING,
    "unsettled": logging.ERROR,
}


class Reports:
    """Logs, and sends error events.

    Args:
        queue: the queue's name.
        errors: where events go; None: nowhere.
        limits: knows which attempt of a key it is; None: as the queue counts.
    """

    def __init__(self, queue: str, errors: ErrorEvents | None, limits: KeyLimits | None = None) -> None:
        self._queue = queue
        self._errors = errors
        self._limits = limits
        self._lifecycle = asked_for(errors)

    @property
    def wants_starts(self) -> bool:
        """Whether anybody asks to be sent what `started`."""
        return self._lifecycle is not None

    def attempts_of(self, owned: OwnedInProgressKey) -> int:
        """Which attempt of its key this is, in every line and event: the same number as the callback says."""
        return owned.attempts if self._limits is None else self._limits.attempts_of(owned)

    def started(self, owned: OwnedInProgressKey, now_us: int) -> None:
        """The callback is about to be called for a key."""
        if self._lifecycle is None:
            return
        try:
            self._lifecycle.changed(StateChange(owned.key, "started", self.attempts_of(owned), from_us(now_us)))
        except Exception:  # else a sink that raises would cost the keys that were started in the same step
            log.exception("no lifecycle event could be sent for key %r", owned.key, extra=self._extra(owned.key))

    def settled(self, owned: OwnedInProgressKey, decision: Decision, outcome: SettleOutcome, clock: Clock) -> None:
        """An attempt is over: `decision` was to be applied, `outcome` is what was."""
        failure = decision.failure
        if failure is not None and outcome == decision.outcome and self._errors is not None:
            self._errors.send(error_event(owned.key, self.attempts_of(owned), failure, clock.wall_us()))
        if self._lifecycle is not None and (state := state_of(outcome)) is not None:
            error, delay, moment = "" if failure is None else failure.error, decision.delay, from_us(clock.wall_us())
            self._lifecycle.changed(StateChange(owned.key, state, self.attempts_of(owned), moment, error, delay))
        level = _LEVELS[outcome] if decision is not UNREACHED else logging.DEBUG
        if log.isEnabledFor(level):
            detail = f", again in {shown_duration(decision.delay)}" if decision.delay else ""
            cause = f": {failure.error}" if failure else ""
            attempts, extra = self.attempts_of(owned), self._extra(owned.key)
            log.log(level, "key %r %s at attempt %d%s%s", owned.key, outcome, attempts, detail, cause, extra=extra)

    def explain(self, key: str, result: object) -> None:
        """Show where a callback raised what it did not mean to raise; an error of ours says all in its text."""
        if isinstance(result, BaseException) and not isinstance(result, WorkQueueError):
            where = (type(result), result, _from_the_callback(result.__traceback__))
            log.info("where key %r failed:", key, exc_info=where, extra=self._extra(key))

    def outage_began(self, error: TargetUnavailableError) -> None:
        """The target is down: starts are held from now on."""
        message = "the target is down: %d calls in a row failed; starts are held, one key at a time probes: %s"
        log.error(message, IN_A_ROW, error, extra={"queue": self._queue})

    def outage_ended(self, ended: Ended) -> None:
        """The target answers again."""
        message = "the target is up again after %.0f s, in which %d calls failed; starts resume"
        log.warning(message, *ended, extra={"queue": self._queue})

    def recovered(self, orphans: Sequence[RecoveredOrphan], now_us: int) -> None:
        """These orphans were queued again or dead-lettered."""
        for orphan in orphans:
            action = "dead-lettered" if orphan.dead_lettered else "queued again"
            owner = f" of {orphan.owner!r}" if orphan.owner else ""  # an owner need not have a name
            message = "orphan %r%s %s at attempt %d"
            log.warning(message, orphan.key, owner, action, orphan.attempts, extra=self._extra(orphan.key))
            if orphan.dead_lettered and self._errors is not None:
                failure = Failure(orphan.error, "dead-lettered")
                self._errors.send(error_event(orphan.key, orphan.attempts, failure, now_us))
            if self._lifecycle is not None:
                state: State = "dead-lettered" if orphan.dead_lettered else "recovered"
                change = StateChange(orphan.key, state, orphan.attempts, from_us(now_us), orphan.error)
                self._lifecycle.changed(change)

    def _extra(self, key: str) -> dict[str, str]:
        return {"key": key, "queue": self._queue}


def _from_the_callback(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of ours that it begins with: they say nothing to the author of a callback."""
    own = traceback
    while own is not None and own.tb_frame.f_code.co_filename.startswith(_OURS):
        own = own.tb_next
    return own or traceback

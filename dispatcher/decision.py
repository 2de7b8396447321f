"""Stage 6: what becomes of a key once its callback has ended (pure). The table of docs/life-of-a-key.md, in order.

Asking for a requeue or for more keys is no failure. A key that failed past its deadline is given up. Any other failure
is first checked against the retry budget, and only then for being final: a key that is out of attempts is
dead-lettered, where an operator finds it, and not silently dropped.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from dispatcher.running import End
from dispatcher.settings import DispatcherSettings
from workqueue.backoff import Backoff, backoff_for
from workqueue.errors import ExpiredError, InvalidOptionsError, NonRetriableError
from workqueue.metrics import SettleOutcome
from workqueue.options import check_duration
from workqueue.outcomes import QueueKey, QueueKeys, RequeueAfter
from workqueue.raised import is_infrastructure, reason_of, retry_delay_of
from workqueue.safe_text import cut, describe

__all__ = [
    "COMPLETE",
    "LEAVE",
    "LOST",
    "MAX_ERROR_BYTES",
    "RELEASE",
    "UNREACHED",
    "Action",
    "Decision",
    "Failure",
    "decide",
    "judge",
]

MAX_ERROR_BYTES = 4096

Action = Literal["requeued", "dead-lettered", "expired", "dropped"]
"""What an error event says was done with the key."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What is known of a failed attempt.

    Args:
        error: class and text of the error, at most 4 KiB of UTF-8.
        action: what was done with the key.
        reason: why it is non-retriable, for `dropped`.
        infrastructure: the cause lies outside the key.
    """

    error: str
    action: Action
    reason: str = ""
    infrastructure: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """How to settle one attempt.

    Args:
        outcome: which verb of the handle, and what is counted; `lost` and `unsettled` write nothing.
        delay: of `requeued` and `retried`.
        floor: of `requeued`: no event may pull the key forward.
        keys: to be stored before the key completes.
        failure: what to report once the settle was applied; None = nothing.
    """

    outcome: SettleOutcome
    delay: timedelta | None = None
    floor: bool = False
    keys: tuple[QueueKey, ...] = ()
    failure: Failure | None = None


COMPLETE = Decision("completed")
"""The callback returned None."""

RELEASE = Decision("released")
"""The attempt was cut short by us: hand the key back unspent."""

UNREACHED = Decision("released")
"""The target is down: hand the key back unspent. Reported once for all such keys, not for each."""

LOST = Decision("lost")
"""The key is another owner's now."""

LEAVE = Decision("unsettled")
"""The lease was given up: the key is left to lapse."""


def decide(end: End, result: object, attempts: int, settings: DispatcherSettings) -> Decision:
    """How to settle an attempt whose callback came to this `end`.

    Args:
        end: how; a lease that is gone or given up leaves nothing to decide.
        result: what the callback returned or raised.
        attempts: the number of this attempt, from 1.
        settings: the retry budget, the backoff hook and the run time.
    """
    match end:
        case "answered":
            return COMPLETE if result is None else _judged(result, attempts, settings)
        case "timed out":
            text = f"the callback ran longer than max_run_time ({settings.max_run_time})"
            return _judged(TimeoutError(text), attempts, settings)
        case "expired":
            return _judged(ExpiredError("the callback ran until the deadline of its key"), attempts, settings)
        case "cancelled":
            return _judged(_cancelled(result), attempts, settings)
        case "cut short":
            return RELEASE
        case "lost":
            return LOST
        case "left":
            return LEAVE


def _judged(result: object, attempts: int, settings: DispatcherSettings) -> Decision:
    decision = judge(result, attempts, settings.max_retry, settings.chosen_backoff)
    return _kept(decision) if settings.keep_dropped else decision


def _kept(decision: Decision) -> Decision:
    """A key that would be dropped is kept as a dead letter; the event says so, and why it is non-retriable."""
    if decision.outcome != "dropped" or decision.failure is None:
        return decision
    return replace(decision, outcome="dead-lettered", failure=replace(decision.failure, action="dead-lettered"))


def _cancelled(result: object) -> asyncio.CancelledError:
    said = f": {result}" if str(result) else ""
    return asyncio.CancelledError(f"the callback's task was cancelled, and not by the dispatcher{said}")


def judge(result: object, attempts: int, max_retry: int, backoff: Backoff | None = None) -> Decision:
    """How to settle an attempt whose callback returned or raised `result` by itself.

    Args:
        result: None, an outcome, an error, or anything else, which is nonsense and fails.
        attempts: the number of this attempt, from 1.
        max_retry: dead-letter from this attempt on; 0 = never.
        backoff: the hook that replaces the default backoff; must not raise.
    """
    try:
        asked = _asked_for(result)
    except Exception as error:  # noqa: BLE001 - an outcome of a user's own class, or one whose delay overflows
        return _failed(error, attempts, max_retry, backoff)
    if asked is not None:
        return asked
    failure = result if isinstance(result, BaseException) else TypeError(_nonsense(result))
    return _failed(failure, attempts, max_retry, backoff)


def _asked_for(result: object) -> Decision | None:
    if result is None:
        return COMPLETE
    if isinstance(result, RequeueAfter):
        return Decision("requeued", delay=_checked(result.next_delay()), floor=result.floor)
    if isinstance(result, QueueKeys):
        return Decision("completed", keys=result.keys)
    return None


def _checked(delay: object) -> timedelta:
    """What an outcome asks for, if a store takes it: a class of a user's own need not have checked it."""
    check_duration("a delay", delay)
    assert isinstance(delay, timedelta)
    if delay <= timedelta(0):
        raise InvalidOptionsError(f"a delay is more than zero, not {delay}")
    return delay


def _failed(error: BaseException, attempts: int, max_retry: int, backoff: Backoff | None) -> Decision:
    text, infrastructure = cut(describe(error), MAX_ERROR_BYTES), is_infrastructure(error)
    if isinstance(error, ExpiredError):
        return Decision("expired", failure=Failure(text, "expired"))
    if 0 < max_retry <= attempts:
        return Decision("dead-lettered", failure=Failure(text, "dead-lettered", infrastructure=infrastructure))
    if isinstance(error, NonRetriableError):
        return Decision("dropped", failure=Failure(text, "dropped", cut(reason_of(error), MAX_ERROR_BYTES)))
    failure = Failure(text, "requeued", infrastructure=infrastructure)
    delay = retry_delay_of(error) or backoff_for(attempts, backoff)
    return Decision("retried", delay=delay, failure=failure)


def _nonsense(result: object) -> str:
    allowed = "None, RequeueAfter, RequeueNotBefore or QueueKeys"
    return f"the callback returned {type(result).__name__}; it may return {allowed}"

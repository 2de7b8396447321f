"""Stages 5-6: what a callback raised, read as one error, however it was raised and whatever it is.

An error of a user's own class runs that user's code when it is read: its text, its reason, its class. None of that may
keep an attempt from being settled. So what is here raises nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from workqueue.errors import (
    ExpiredError,
    InfrastructureError,
    NonRetriableError,
    RetryAfterError,
    TargetUnavailableError,
    Trouble,
)
from workqueue.outcomes import QueueKeys, RequeueAfter
from workqueue.safe_text import describe, leaves_of

__all__ = ["as_one", "is_infrastructure", "reason_of", "retry_delay_of"]

_T = TypeVar("_T")


def as_one(error: BaseException) -> BaseException:
    """What a callback raised as one error, where it ran in an `asyncio.TaskGroup` or the like.

    A group of one is the error in it, an outcome included, and so is a group that holds a KeyboardInterrupt. A group
    whose errors agree is what they agree on: requeues meet as enqueues do, keys to queue are all queued, final is
    final, and so on for `ExpiredError`, `TargetUnavailableError`, `InfrastructureError`, `RetryAfterError`. Any other
    group is what it is: one failure, tried again.

    An error that cannot even be asked for its class is replaced by a RuntimeError that names it.
    """
    try:
        if not isinstance(error, BaseExceptionGroup):
            return error
        return _agreed(leaves_of(error)) or error
    except Exception as unreadable:  # noqa: BLE001 - an error's own code agrees with nothing
        return _named(error, unreadable)


def _named(error: BaseException, unreadable: Exception) -> BaseException:
    try:
        leaves_of(error)
    except Exception:  # noqa: BLE001 - as above
        return RuntimeError(f"{type(error).__name__}, which cannot be read: {describe(unreadable)}")
    return error


def _agreed(leaves: Sequence[BaseException]) -> BaseException | None:
    if len(leaves) == 1:
        return leaves[0]
    for leaf in leaves:
        if isinstance(leaf, KeyboardInterrupt):
            return leaf
    for kind, join in _JOINS:
        if all(isinstance(leaf, kind) for leaf in leaves):
            return join(leaves)
    return InfrastructureError(_texts(leaves)) if all(map(is_infrastructure, leaves)) else None


def _texts(leaves: Sequence[BaseException]) -> str:
    return "; ".join(map(describe, leaves))


def _requeue(leaves: Sequence[RequeueAfter]) -> BaseException:
    """The earliest; of those with a floor the latest, which no other undercuts: as when enqueues meet."""
    floors = [leaf for leaf in leaves if leaf.floor]
    return max(floors, key=_delay) if floors else min(leaves, key=_delay)


def _delay(leaf: RequeueAfter) -> timedelta:
    return leaf.delay


def _keys(leaves: Sequence[QueueKeys]) -> BaseException:
    return QueueKeys(*[key for leaf in leaves for key in leaf.keys])


def _expired(leaves: Sequence[ExpiredError]) -> BaseException:
    return ExpiredError("; ".join(map(reason_of, leaves)), _texts(leaves))


def _final(leaves: Sequence[NonRetriableError]) -> BaseException:
    return NonRetriableError("; ".join(map(reason_of, leaves)), _texts(leaves))


def _unavailable(leaves: Sequence[TargetUnavailableError]) -> BaseException:
    """The worst trouble counts: a call that broke off may have been what broke the target."""
    troubles = {leaf.trouble for leaf in leaves}
    worst: Trouble = "broken" if "broken" in troubles else "refused" if "refused" in troubles else "unsent"
    return TargetUnavailableError(_texts(leaves), worst)


def _later(leaves: Sequence[RetryAfterError]) -> BaseException:
    """The longest delay, when all of them may be asked again."""
    delays = [delay for leaf in leaves if (delay := retry_delay_of(leaf)) is not None]
    return RetryAfterError(max(delays), _texts(leaves))


_JOINS: tuple[tuple[type[BaseException], Callable[[Any], BaseException]], ...] = (
    (RequeueAfter, _requeue),
    (QueueKeys, _keys),
    (ExpiredError, _expired),
    (NonRetriableError, _final),
    (TargetUnavailableError, _unavailable),
    (RetryAfterError, _later),
)
"""How errors that agree become one; a class stands before those that it is derived from."""


def reason_of(error: NonRetriableError) -> str:
    """Why it is final: its reason, or where none can be had what it says."""
    return _read(lambda: str(error.reason or ""), "") or describe(error)


def retry_delay_of(error: BaseException) -> timedelta | None:
    """When an error asks to be tried again; None where it is no `RetryAfterError`, or asks for nothing that can be."""
    if not isinstance(error, RetryAfterError):
        return None
    delay: object = _read(lambda: error.delay, None)
    return delay if isinstance(delay, timedelta) and delay > timedelta(0) else None


def is_infrastructure(error: BaseException) -> bool:
    """Whether it failed for a reason outside the key: an `InfrastructureError`, or a gRPC call's UNAVAILABLE.

    gRPC itself need not be imported.
    """
    if isinstance(error, InfrastructureError):
        return True
    code = _read(lambda: getattr(error, "code", None), None)
    return callable(code) and _read(lambda: getattr(code(), "name", "") == "UNAVAILABLE", False)


def _read(read: Callable[[], _T], default: _T) -> _T:
    try:
        return read()
    except BaseException:  # noqa: BLE001 - a user's own code, which may even call sys.exit
        return default

"""Every error this library raises, named for what the caller should do next.

The docstring of each class is its default message, so that `raise QueueClosedError` already reads well in a log.
Nothing in this project matches on an error's text.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

from workqueue.safe_text import describe

if TYPE_CHECKING:
    from workqueue.options import FailedKey

__all__ = [
    "ExpiredError",
    "InfrastructureError",
    "InvalidKeyError",
    "InvalidOptionsError",
    "InvalidSettingError",
    "KeyNotFoundError",
    "KeysNotSentError",
    "MissingExtraError",
    "NonRetriableError",
    "PartlyStoredError",
    "PayloadTooLargeError",
    "QueueClosedError",
    "RetryAfterError",
    "StartLostError",
    "StoreError",
    "StoreUnavailableError",
    "StoreUnusableError",
    "TargetUnavailableError",
    "Trouble",
    "UnsupportedError",
    "WorkQueueError",
]

Trouble = Literal["unsent", "broken", "refused"]
"""How a call failed: it was never made, the connection broke during it, or somebody said that the target is down."""


class WorkQueueError(Exception):
    """The workqueue could not do what was asked."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or inspect.cleandoc(self.__doc__ or "").split("\n\n")[0])


class InvalidKeyError(WorkQueueError, ValueError):
    """A key is 1 to 1000 bytes of UTF-8 without control characters; nothing was stored."""


class InvalidOptionsError(WorkQueueError, ValueError):
    """An enqueue option is out of range; nothing was stored."""


class PayloadTooLargeError(InvalidOptionsError):
    """The payload is larger than this queue accepts; store it elsewhere and enqueue a reference to it."""


class InvalidSettingError(WorkQueueError, ValueError):
    """A setting has a value that it cannot take; the message names the setting and what it takes."""


class MissingExtraError(WorkQueueError, ImportError):
    """An optional dependency is missing; the message names the extra to install."""


class UnsupportedError(WorkQueueError):
    """This backend cannot do that; docs/backends.md says which one can."""


class KeyNotFoundError(WorkQueueError, LookupError):
    """The key is neither queued, nor in progress, nor dead-lettered."""


class StartLostError(WorkQueueError):
    """Another owner started, changed or dropped the key since it was listed; skip it."""


class QueueClosedError(WorkQueueError):
    """The queue is closed; open it again with `open_queue`.

    Also raised for a queue that was never entered, and for a call from another event loop or thread than entered it;
    the message says which it is. Nothing was done.
    """


class StoreError(WorkQueueError):
    """The store failed."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached, or is busy or full, at the moment; the same call may succeed later."""


class StoreUnusableError(StoreError):
    """The store will not work until an operator changes something; retrying does not help."""


class PartlyStoredError(StoreError):
    """Some keys of a batch were not stored: `failed` has each with its error; the others were."""

    def __init__(self, failed: Sequence[FailedKey]) -> None:
        super().__init__(f"{len(failed)} keys of a batch were not stored; {failed[0].key!r}: {failed[0].error}")
        self.failed = failed


class KeysNotSentError(WorkQueueError):
    """A background enqueuer could not send every key that it had taken: enqueue those in `unsent` again.

    `failed` counts them all; those that failed before the enqueuer was closed were logged.
    """

    def __init__(self, failed: int, unsent: Sequence[FailedKey]) -> None:
        super().__init__(f"{failed} keys could not be enqueued, {len(unsent)} of them at the end")
        self.failed = failed
        self.unsent = unsent


class NonRetriableError(WorkQueueError):
    """This key cannot succeed, however often it is tried.

    Raise it from a callback to drop the key.

    Args:
        reason: why; sent with the error event (`nonRetriableReason`) and over gRPC (`NoRetryDetails.message`). An error
            in its place is the cause.
        cause: the underlying error, whose text is this error's; else its text is the reason.
    """

    reason: str = ""  # of a subclass whose __init__ does not call this one

    def __init__(self, reason: BaseException | str = "", cause: BaseException | str = "") -> None:
        super().__init__(_text_of(cause) or _text_of(reason))
        self.reason = _text_of(reason) or str(self)
        for each in (cause, reason):
            if isinstance(each, BaseException):
                self.__cause__ = each
                break


class ExpiredError(NonRetriableError):
    """The key's deadline has passed, so it is not tried any more: it is dead-lettered as `expired`."""


class InfrastructureError(WorkQueueError):
    """The attempt failed for a reason outside the key, such as a dependency that is down.

    Raise it from a callback with the underlying error as `cause`: the key is retried as usual, and its error events
    carry `infrastructure: true`, so that an alert can separate an outage from a bad key.
    """

    def __init__(self, cause: BaseException | str) -> None:
        super().__init__(_text_of(cause))
        if isinstance(cause, BaseException):
            self.__cause__ = cause


class TargetUnavailableError(InfrastructureError):
    """What is to be called for each key cannot be reached; raise it from a callback of your own for the like.

    Args:
        cause: the underlying error.
        trouble: `unsent`: the call was never made. `broken`: the connection was up and broke during the call, so that
            the key itself may be what broke it. `refused`: somebody answered that the target is unavailable, and it may
            have been a proxy before it.
    """

    trouble: Trouble = "unsent"  # of a subclass whose __init__ does not call this one

    behind = False
    """Whether a reconciler answered this, of what it needs itself: then the connection to it says nothing."""

    def __init__(self, cause: BaseException | str, trouble: Trouble = "unsent") -> None:
        super().__init__(cause)
        self.trouble = trouble


class RetryAfterError(WorkQueueError):
    """The attempt failed, and whoever it failed for says when to try again.

    Raise it from a callback: the attempt counts, as with any error, but `delay` stands in place of the backoff.

    Args:
        delay: more than zero.
        cause: the underlying error, or its text.

    Raises:
        InvalidOptionsError: `delay` is not positive, or no timedelta.
    """

    delay = timedelta(0)  # of a subclass whose __init__ does not call this one: the backoff stands

    def __init__(self, delay: timedelta, cause: BaseException | str) -> None:
        if not isinstance(delay, timedelta) or delay <= timedelta(0):
            text = "a delay is a timedelta of more than zero, such as timedelta(seconds=5)"
            raise InvalidOptionsError(f"{text}, not {delay!r}")
        super().__init__(_text_of(cause))
        self.delay = delay
        if isinstance(cause, BaseException):
            self.__cause__ = cause


def _text_of(cause: BaseException | str) -> str:
    return describe(cause) if isinstance(cause, BaseException) else str(cause or "")

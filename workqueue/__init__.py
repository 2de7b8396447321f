"""A keyed, level-based workqueue: what a key is, and where it lives. See docs/life-of-a-key.md.

Each name is imported when it is first used, so that a program can begin with something else: to heed signals, say.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workqueue.attempt import Attempt
    from workqueue.backends import open_queue
    from workqueue.clock import Clock, SystemClock
    from workqueue.errors import (
        ExpiredError,
        InfrastructureError,
        InvalidKeyError,
        InvalidOptionsError,
        InvalidSettingError,
        KeyNotFoundError,
        KeysNotSentError,
        MissingExtraError,
        NonRetriableError,
        PartlyStoredError,
        PayloadTooLargeError,
        QueueClosedError,
        RetryAfterError,
        StartLostError,
        StoreError,
        StoreUnavailableError,
        StoreUnusableError,
        TargetUnavailableError,
        UnsupportedError,
        WorkQueueError,
    )
    from workqueue.fallbacks import FullQueue
    from workqueue.interface import (
        DeadLetteredKey,
        KeyState,
        KeyStatus,
        ObservedInProgressKey,
        OwnedInProgressKey,
        QueuedKey,
        Snapshot,
        UnreadableKey,
        WorkQueue,
    )
    from workqueue.optional import Counts, Found
    from workqueue.options import Options
    from workqueue.outcomes import Outcome, QueueKey, QueueKeys, RequeueAfter, RequeueNotBefore
    from workqueue.paging import Page, PageRequest, Place
    from workqueue.throttle import Configuration

    __version__: str

__all__ = [
    "Attempt",
    "Clock",
    "Configuration",
    "Counts",
    "DeadLetteredKey",
    "ExpiredError",
    "Found",
    "FullQueue",
    "InfrastructureError",
    "InvalidKeyError",
    "InvalidOptionsError",
    "InvalidSettingError",
    "KeyNotFoundError",
    "KeyState",
    "KeyStatus",
    "KeysNotSentError",
    "MissingExtraError",
    "NonRetriableError",
    "ObservedInProgressKey",
    "Options",
    "Outcome",
    "OwnedInProgressKey",
    "Page",
    "PageRequest",
    "PartlyStoredError",
    "PayloadTooLargeError",
    "Place",
    "QueueClosedError",
    "QueueKey",
    "QueueKeys",
    "QueuedKey",
    "RequeueAfter",
    "RequeueNotBefore",
    "RetryAfterError",
    "Snapshot",
    "StartLostError",
    "StoreError",
    "StoreUnavailableError",
    "StoreUnusableError",
    "SystemClock",
    "TargetUnavailableError",
    "UnreadableKey",
    "UnsupportedError",
    "WorkQueue",
    "WorkQueueError",
    "open_queue",
]

_LAZY = {
    "Attempt": "workqueue.attempt",
    "Clock": "workqueue.clock",
    "Configuration": "workqueue.throttle",
    "Counts": "workqueue.optional",
    "DeadLetteredKey": "workqueue.interface",
    "ExpiredError": "workqueue.errors",
    "Found": "workqueue.optional",
    "FullQueue": "workqueue.fallbacks",
    "InfrastructureError": "workqueue.errors",
    "InvalidKeyError": "workqueue.errors",
    "InvalidOptionsError": "workqueue.errors",
    "InvalidSettingError": "workqueue.errors",
    "KeyNotFoundError": "workqueue.errors",
    "KeyState": "workqueue.interface",
    "KeyStatus": "workqueue.interface",
    "KeysNotSentError": "workqueue.errors",
    "MissingExtraError": "workqueue.errors",
    "NonRetriableError": "workqueue.errors",
    "ObservedInProgressKey": "workqueue.interface",
    "Options": "workqueue.options",
    "Outcome": "workqueue.outcomes",
    "OwnedInProgressKey": "workqueue.interface",
    "Page": "workqueue.paging",
    "PageRequest": "workqueue.paging",
    "PartlyStoredError": "workqueue.errors",
    "PayloadTooLargeError": "workqueue.errors",
    "Place": "workqueue.paging",
    "QueueClosedError": "workqueue.errors",
    "QueueKey": "workqueue.outcomes",
    "QueueKeys": "workqueue.outcomes",
    "QueuedKey": "workqueue.interface",
    "RequeueAfter": "workqueue.outcomes",
    "RequeueNotBefore": "workqueue.outcomes",
    "RetryAfterError": "workqueue.errors",
    "Snapshot": "workqueue.interface",
    "StartLostError": "workqueue.errors",
    "StoreError": "workqueue.errors",
    "StoreUnavailableError": "workqueue.errors",
    "StoreUnusableError": "workqueue.errors",
    "SystemClock": "workqueue.clock",
    "TargetUnavailableError": "workqueue.errors",
    "UnreadableKey": "workqueue.interface",
    "UnsupportedError": "workqueue.errors",
    "WorkQueue": "workqueue.interface",
    "WorkQueueError": "workqueue.errors",
    "open_queue": "workqueue.backends",
}

if not TYPE_CHECKING:  # with it in sight, type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name == "__version__":  # asked for seldom, and reading it takes longer than importing this
            from importlib.metadata import version

            return version("workqueue-dispatcher")
        if name not in _LAZY:
            raise AttributeError(f"module 'workqueue' has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)

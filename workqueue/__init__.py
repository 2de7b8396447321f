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
        InfrastructureError,
        InvalidKeyError,
        InvalidOptionsError,
        KeyNotFoundError,
        NonRetriableError,
        StartLostError,
        StoreError,
        StoreUnavailableError,
        WorkQueueError,
    )
    from workqueue.interface import (
        DeadLetteredKey,
        KeyState,
        KeyStatus,
        ObservedInProgressKey,
        OwnedInProgressKey,
        QueuedKey,
        Snapshot,
        WorkQueue,
    )
    from workqueue.options import Options
    from workqueue.outcomes import Outcome, QueueKey, QueueKeys, RequeueAfter, RequeueNotBefore
    from workqueue.throttle import Configuration

    __version__: str

__all__ = [
    "Attempt",
    "Clock",
    "Configuration",
    "DeadLetteredKey",
    "InfrastructureError",
    "InvalidKeyError",
    "InvalidOptionsError",
    "KeyNotFoundError",
    "KeyState",
    "KeyStatus",
    "NonRetriableError",
    "ObservedInProgressKey",
    "Options",
    "Outcome",
    "OwnedInProgressKey",
    "QueueKey",
    "QueueKeys",
    "QueuedKey",
    "RequeueAfter",
    "RequeueNotBefore",
    "Snapshot",
    "StartLostError",
    "StoreError",
    "StoreUnavailableError",
    "SystemClock",
    "WorkQueue",
    "WorkQueueError",
    "open_queue",
]

_LAZY = {
    "Attempt": "workqueue.attempt",
    "Clock": "workqueue.clock",
    "Configuration": "workqueue.throttle",
    "DeadLetteredKey": "workqueue.interface",
    "InfrastructureError": "workqueue.errors",
    "InvalidKeyError": "workqueue.errors",
    "InvalidOptionsError": "workqueue.errors",
    "KeyNotFoundError": "workqueue.errors",
    "KeyState": "workqueue.interface",
    "KeyStatus": "workqueue.interface",
    "NonRetriableError": "workqueue.errors",
    "ObservedInProgressKey": "workqueue.interface",
    "Options": "workqueue.options",
    "Outcome": "workqueue.outcomes",
    "OwnedInProgressKey": "workqueue.interface",
    "QueueKey": "workqueue.outcomes",
    "QueueKeys": "workqueue.outcomes",
    "QueuedKey": "workqueue.interface",
    "RequeueAfter": "workqueue.outcomes",
    "RequeueNotBefore": "workqueue.outcomes",
    "Snapshot": "workqueue.interface",
    "StartLostError": "workqueue.errors",
    "StoreError": "workqueue.errors",
    "StoreUnavailableError": "workqueue.errors",
    "SystemClock": "workqueue.clock",
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

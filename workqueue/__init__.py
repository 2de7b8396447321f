"""A keyed, level-based workqueue: what a key is, and where it lives. See docs/life-of-a-key.md.

`import workqueue` brings the interface and no driver; everything else is imported where it is used.
"""

from __future__ import annotations

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

__all__ = [
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

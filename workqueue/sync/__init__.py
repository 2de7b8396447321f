"""Stage 1: a queue for synchronous code: Django, Flask, scripts. Read `queue` first; docs/sync.md has recipes.

with open_queue("redis://localhost/0") as queue:
    queue.queue("customer/42")
"""

from __future__ import annotations

from workqueue.sync.handles import (
    DeadLetteredKey,
    Found,
    ObservedInProgressKey,
    Page,
    QueuedKey,
    Snapshot,
    UnreadableKey,
)
from workqueue.sync.queue import Queue, open_queue

__all__ = [
    "DeadLetteredKey",
    "Found",
    "ObservedInProgressKey",
    "Page",
    "Queue",
    "QueuedKey",
    "Snapshot",
    "UnreadableKey",
    "open_queue",
]

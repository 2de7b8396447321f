"""For tests of queues and reconcilers: a clock to move, attempts made by hand, assertions, and a queue that fails.

docs/testing.md shows them at work; `dispatcher.testing` has what calls a reconciler.
"""

from __future__ import annotations

from workqueue.testing.attempts import MadeAttempt, attempt
from workqueue.testing.clock import FakeClock
from workqueue.testing.expectations import assert_dead_lettered, assert_gone, assert_queued, shown_queue
from workqueue.testing.flaky import FlakyQueue

__all__ = [
    "FakeClock",
    "FlakyQueue",
    "MadeAttempt",
    "assert_dead_lettered",
    "assert_gone",
    "assert_queued",
    "attempt",
    "shown_queue",
]

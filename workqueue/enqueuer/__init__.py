"""Stage 1: enqueueing in the background: keys are gathered, sent in batches, and each is accounted for."""

from __future__ import annotations

from workqueue.enqueuer.background import BackgroundEnqueuer, OnError
from workqueue.enqueuer.batch import Sink
from workqueue.enqueuer.metrics import EnqueuerMetrics
from workqueue.enqueuer.settings import EnqueuerArgs, EnqueuerSettings
from workqueue.options import FailedKey

__all__ = [
    "BackgroundEnqueuer",
    "EnqueuerArgs",
    "EnqueuerMetrics",
    "EnqueuerSettings",
    "FailedKey",
    "OnError",
    "Sink",
]

"""Stages 3-7: what a round, a loop and their attempts have in common."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.callback import AsyncCallback, Callback
from dispatcher.error_events import ErrorEvents
from dispatcher.limits import KeyLimits, LimitingCallback
from dispatcher.settings import DispatcherSettings
from workqueue.attempt import as_async
from workqueue.clock import Clock
from workqueue.fallbacks import FullQueue, with_fallbacks
from workqueue.interface import WorkQueue
from workqueue.lease import LeaseRenewer
from workqueue.metrics import DispatchMetrics

__all__ = ["Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """A queue, what to call for its keys and how, where to report and count, who keeps the leases and limits keys."""

    queue: FullQueue
    callback: AsyncCallback
    settings: DispatcherSettings
    errors: ErrorEvents | None
    metrics: DispatchMetrics
    clock: Clock
    renewer: LeaseRenewer | None = None
    limits: KeyLimits | None = None

    @classmethod
    def of(
        cls,
        queue: WorkQueue,
        callback: Callback,
        settings: DispatcherSettings,
        errors: ErrorEvents | None = None,
        metrics: DispatchMetrics | None = None,
    ) -> Setup:
        """Complete a backend of three verbs and a plain function; the clock is the queue's."""
        full = with_fallbacks(queue)
        equipment = full.equipment
        metrics = metrics or DispatchMetrics.of(full)
        if errors is not None:
            metrics.events = errors.results
        clock, renewer = equipment.clock, equipment.renewer
        limits = KeyLimits(callback, settings, clock) if isinstance(callback, LimitingCallback) else None
        return cls(full, as_async(callback), settings, errors, metrics, clock, renewer, limits)

"""What a round, a loop and their attempts have in common."""

from __future__ import annotations

from dataclasses import dataclass

from dispatcher.callback import AsyncCallback, Callback
from dispatcher.error_events import ErrorEvents
from dispatcher.key_limits import KeyLimits, LimitingCallback
from dispatcher.lifecycle import asked_for
from dispatcher.outage import Outage, outage_of
from dispatcher.settings import DispatcherSettings
from workqueue.attempt import as_async, check_callback
from workqueue.clock import Clock
from workqueue.errors import InvalidSettingError
from workqueue.fallbacks import FullQueue, with_fallbacks
from workqueue.interface import WorkQueue
from workqueue.lease import LeaseRenewer
from workqueue.metrics import DispatchMetrics, metrics_of
from workqueue.optional import offers
from workqueue.options import check_type

__all__ = ["Setup"]


@dataclass(frozen=True, slots=True)
class Setup:
    """A queue, what to call for its keys and how, where to report and count, who keeps leases, what is down."""

    queue: FullQueue
    callback: AsyncCallback
    settings: DispatcherSettings
    errors: ErrorEvents | None
    metrics: DispatchMetrics
    clock: Clock
    renewer: LeaseRenewer | None
    outage: Outage
    limits: KeyLimits | None

    @classmethod
    def of(
        cls,
        queue: WorkQueue,
        callback: Callback,
        settings: DispatcherSettings,
        errors: ErrorEvents | None = None,
        metrics: DispatchMetrics | None = None,
        outage: Outage | None = None,
    ) -> Setup:
        """Complete a backend of three verbs and a plain function; clock and renewer are the queue's.

        Args:
            queue: any backend.
            callback: what is called for each key.
            settings: how.
            errors: where error events go.
            metrics: where to count, if somebody else counts there too.
            outage: what is known of the target; None: what the callback itself knows, or nothing yet.

        Raises:
            InvalidSettingError: it is no queue, or the callback cannot be called with a key and its attempt.
        """
        if not offers(queue, WorkQueue):
            text = "a dispatcher takes a queue that lists keys, as open_queue(url) gives it for the URL of a store"
            raise InvalidSettingError(f"{text}, not a {type(queue).__name__}")
        check_callback(callback, "key", "attempt")
        check_type("settings", settings, DispatcherSettings, "DispatcherSettings(concurrency=5, ...)")
        if errors is not None and not offers(errors, ErrorEvents):
            text = "errors takes what sends error events, such as CloudEventErrors(url, source)"
            raise InvalidSettingError(f"{text}, not a {type(errors).__name__}")
        full = with_fallbacks(queue)
        equipment = full.equipment
        metrics = metrics or DispatchMetrics.of(full)
        if errors is not None:
            metrics.events = errors.results
        if (lifecycle := asked_for(errors)) is not None:
            metrics.changes = lifecycle.changes
        outage = outage or outage_of(callback)
        metrics.is_target_down = outage.is_on
        counted = metrics_of(full)
        metrics.limit = lambda: counted.configuration.limit(settings.concurrency)
        clock, renewer = equipment.clock, equipment.renewer
        limits = KeyLimits(callback, settings, clock) if isinstance(callback, LimitingCallback) else None
        return cls(full, as_async(callback), settings, errors, metrics, clock, renewer, outage, limits)

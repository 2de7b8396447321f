"""What happens to a key: the dispatcher takes keys from a workqueue, calls the reconciler and settles the result."""

from __future__ import annotations

from dispatcher.callback import Attempt, Callback
from dispatcher.events import CloudEventErrors, ErrorEvent, ErrorEvents
from dispatcher.outage import TargetUnavailableError
from dispatcher.round import handle, handle_async
from dispatcher.settings import DispatcherSettings

__all__ = [
    "Attempt",
    "Callback",
    "CloudEventErrors",
    "DispatcherSettings",
    "ErrorEvent",
    "ErrorEvents",
    "TargetUnavailableError",
    "handle",
    "handle_async",
]

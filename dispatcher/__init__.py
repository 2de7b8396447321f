"""What happens to a key: the dispatcher takes keys from a workqueue, calls the reconciler and settles the result."""

from __future__ import annotations

from dispatcher.callback import Attempt, Callback
from dispatcher.events import CloudEventErrors, ErrorEvent, ErrorEvents
from dispatcher.health import Health
from dispatcher.loop import Dispatcher, run_until_signalled
from dispatcher.outage import TargetUnavailableError
from dispatcher.round import handle, handle_async
from dispatcher.settings import DispatcherSettings

__all__ = [
    "Attempt",
    "Callback",
    "CloudEventErrors",
    "Dispatcher",
    "DispatcherSettings",
    "ErrorEvent",
    "ErrorEvents",
    "Health",
    "TargetUnavailableError",
    "handle",
    "handle_async",
    "run_until_signalled",
]

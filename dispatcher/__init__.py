"""What happens to a key: the dispatcher takes keys from a workqueue, calls the reconciler and settles the result.

`handle` runs one round, `handler` one at each HTTP request, `Dispatcher` runs until it is stopped. Each name is
imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dispatcher.callback import Attempt, Callback
    from dispatcher.controller.cluster import Cluster
    from dispatcher.controller.controller import Controller, ControllerSettings
    from dispatcher.decision import Failure
    from dispatcher.error_events import CloudEventErrors, ErrorEvent, ErrorEvents
    from dispatcher.health import Health
    from dispatcher.lifecycle import CloudEventLifecycle, LifecycleEvents, StateChange
    from dispatcher.loop import Dispatcher, run_until_signalled
    from dispatcher.outage import TargetUnavailableError
    from dispatcher.round import handle, handle_async
    from dispatcher.settings import DispatcherSettings
    from dispatcher.targets.command import CommandCallback, command_callback
    from dispatcher.targets.document import HandlerFailedError
    from dispatcher.targets.post import HttpCallback, http_callback
    from dispatcher.targets.service import ServiceCallback, TargetError, service_callback
    from dispatcher.trigger import Trigger, handler

__all__ = [
    "Attempt",
    "Callback",
    "CloudEventErrors",
    "CloudEventLifecycle",
    "Cluster",
    "CommandCallback",
    "Controller",
    "ControllerSettings",
    "Dispatcher",
    "DispatcherSettings",
    "ErrorEvent",
    "ErrorEvents",
    "Failure",
    "HandlerFailedError",
    "Health",
    "HttpCallback",
    "LifecycleEvents",
    "ServiceCallback",
    "StateChange",
    "TargetError",
    "TargetUnavailableError",
    "Trigger",
    "command_callback",
    "handle",
    "handle_async",
    "handler",
    "http_callback",
    "run_until_signalled",
    "service_callback",
]

_LAZY = {
    "Attempt": "dispatcher.callback",
    "Callback": "dispatcher.callback",
    "CloudEventErrors": "dispatcher.error_events",
    "CloudEventLifecycle": "dispatcher.lifecycle",
    "Cluster": "dispatcher.controller.cluster",
    "CommandCallback": "dispatcher.targets.command",
    "Controller": "dispatcher.controller.controller",
    "ControllerSettings": "dispatcher.controller.controller",
    "Dispatcher": "dispatcher.loop",
    "DispatcherSettings": "dispatcher.settings",
    "ErrorEvent": "dispatcher.error_events",
    "ErrorEvents": "dispatcher.error_events",
    "Failure": "dispatcher.decision",
    "HandlerFailedError": "dispatcher.targets.document",
    "Health": "dispatcher.health",
    "HttpCallback": "dispatcher.targets.post",
    "LifecycleEvents": "dispatcher.lifecycle",
    "ServiceCallback": "dispatcher.targets.service",
    "StateChange": "dispatcher.lifecycle",
    "TargetError": "dispatcher.targets.service",
    "TargetUnavailableError": "dispatcher.outage",
    "Trigger": "dispatcher.trigger",
    "command_callback": "dispatcher.targets.command",
    "handle": "dispatcher.round",
    "handle_async": "dispatcher.round",
    "handler": "dispatcher.trigger",
    "http_callback": "dispatcher.targets.post",
    "run_until_signalled": "dispatcher.loop",
    "service_callback": "dispatcher.targets.service",
}

if not TYPE_CHECKING:  # with it in sight, type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'dispatcher' has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)

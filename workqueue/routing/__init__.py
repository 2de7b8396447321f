"""Stage 5: several handlers behind one queue, chosen by what a key or a message is about.

`KeyRouter` calls the callback for a key's type; read `keys` first. `Router` hands a raw message to a typed handler;
read `messages.router`. Retry policies have names here. What calls handlers in other languages is the dispatcher's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workqueue.routing.key_limits import Limits, with_limits
from workqueue.routing.keys import KeyRouter, Middleware
from workqueue.routing.policies import POLICIES, Decorrelated, Fixed, Linear, retry_policy

if TYPE_CHECKING:
    from workqueue.routing.messages.discriminators import all_of, any_of, field_equals, has_fields
    from workqueue.routing.messages.handlers import as_json
    from workqueue.routing.messages.hooks import Hooks
    from workqueue.routing.messages.inspectors import inspect_cloud_event, inspect_json
    from workqueue.routing.messages.message import Context, Message, Parsed, Processed, Replier
    from workqueue.routing.messages.router import Router
    from workqueue.routing.messages.source import Source, fields
    from workqueue.routing.messages.transports import consume, queue_callback
    from workqueue.routing.messages.webhook import webhook

__all__ = [
    "POLICIES",
    "Context",
    "Decorrelated",
    "Fixed",
    "Hooks",
    "KeyRouter",
    "Limits",
    "Linear",
    "Message",
    "Middleware",
    "Parsed",
    "Processed",
    "Replier",
    "Router",
    "Source",
    "all_of",
    "any_of",
    "as_json",
    "consume",
    "field_equals",
    "fields",
    "has_fields",
    "inspect_cloud_event",
    "inspect_json",
    "queue_callback",
    "retry_policy",
    "webhook",
    "with_limits",
]

_LAZY = {  # these need msgspec
    "Context": "message",
    "Hooks": "hooks",
    "Message": "message",
    "Parsed": "message",
    "Processed": "message",
    "Replier": "message",
    "Router": "router",
    "Source": "source",
    "all_of": "discriminators",
    "any_of": "discriminators",
    "as_json": "handlers",
    "consume": "transports",
    "field_equals": "discriminators",
    "fields": "source",
    "has_fields": "discriminators",
    "inspect_cloud_event": "inspectors",
    "inspect_json": "inspectors",
    "queue_callback": "transports",
    "webhook": "webhook",
}

if not TYPE_CHECKING:  # with it in sight, type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'workqueue.routing' has no attribute {name!r}")
        return getattr(import_module(f"workqueue.routing.messages.{_LAZY[name]}"), name)

"""Stage 5: why a key or a message was not handled. What a class is called says at which step it went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from workqueue.errors import WorkQueueError

__all__ = [
    "DecodeError",
    "DuplicateRouteError",
    "InvalidPayloadError",
    "NoHandlerError",
    "NoRouteError",
    "NoSourceError",
    "ParseError",
    "RoutingError",
    "UnusableHandlerError",
]


class DuplicateRouteError(WorkQueueError, ValueError):
    """Two handlers, or two sources, were registered under one name; remove one, or rename it."""


class UnusableHandlerError(WorkQueueError, TypeError):
    """A handler cannot be called with a payload; the message says what its signature lacks."""


class NoRouteError(WorkQueueError, LookupError):
    """No route takes keys of this type; deploy its handler, or register a catch-all under ''."""


class RoutingError(WorkQueueError):
    """A message did not reach a handler. `hook` names the hook that may decide to skip it."""

    hook: ClassVar[str] = ""


class NoSourceError(RoutingError):
    """No source takes this message.

    Args:
        size: of the message, in bytes.
        unread: why inspectors could not read it.
    """

    hook = "on_no_source"

    # Strangers may be most of the traffic: a function of ours here would be an eighth of what each of them costs.
    __init__ = Exception.__init__

    @property
    def size(self) -> int:
        """The size of the message."""
        return int(self.args[0])

    @property
    def unread(self) -> Sequence[Exception]:
        """Why inspectors could not read it."""
        return self.args[1] if len(self.args) > 1 else ()

    def __str__(self) -> str:
        why = ", ".join(f"{type(error).__name__}: {error}" for error in self.unread) or "none claims it"
        return f"no source takes this message of {self.size} bytes: {why}"


class ParseError(RoutingError):
    """A source took the message but could not find its key and payload."""

    hook = "on_parse_error"


class NoHandlerError(RoutingError, LookupError):
    """No handler is registered for the message's key."""

    hook = "on_no_handler"


class DecodeError(RoutingError, ValueError):
    """The payload is not what the handler takes."""

    hook = "on_decode_error"


class InvalidPayloadError(RoutingError, ValueError):
    """The payload was decoded, but its `validate` refused it."""

    hook = "on_validation_error"

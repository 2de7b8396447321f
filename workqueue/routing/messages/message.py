"""Stage 5: a raw message, and what is known of it on its way to a handler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

from workqueue.attempt import Attempt
from workqueue.routing.errors import RoutingError

__all__ = ["NO_HEADERS", "Context", "Message", "Parsed", "Processed", "Replier"]

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


def _no_headers() -> Mapping[str, Any]:
    return NO_HEADERS


# Neither this nor what follows is frozen: that would make each of them three times as slow to create, on a path where
# they are most of the cost. Nobody changes them.
@dataclass(slots=True)
class Message:
    """What a transport received.

    Args:
        raw: the body.
        headers: what came beside it, names in lower case: HTTP headers, or the meta of a key.
    """

    raw: bytes
    headers: Mapping[str, str] = field(default_factory=_no_headers)


@runtime_checkable
class Replier(Protocol):
    """Answers whoever waits for a message to be handled."""

    async def reply(self, result: object) -> None:
        """It was handled; `result` is what a func returned, `{}` for a proc and for a message that was skipped."""

    async def fail(self, error: Exception) -> None:
        """It was not handled."""


@dataclass(slots=True)
class Parsed:
    """What a source found in a message.

    Args:
        key: which handler it is for.
        payload: what the handler gets: bytes of JSON, or data that was parsed already.
        replier: whom to answer, if anybody waits.
    """

    key: str
    payload: object
    replier: Replier | None = None


@dataclass(slots=True)
class Context:
    """What hooks get to know of a message, and handlers that ask for it.

    Args:
        message: as it was received.
        source: the name of the source that took it; empty before.
        key: the key that the source found; empty before.
        values: what hooks added.
        attempt: of the key that carries the message, where it came from a queue.
    """

    message: Message
    source: str = ""
    key: str = ""
    values: Mapping[str, Any] = field(default_factory=_no_headers)
    attempt: Attempt | None = None

    def having(self, **values: Any) -> Context:
        """A context with these values too, for an `on_parse` hook to return."""
        return replace(self, values={**self.values, **values})


class Processed(NamedTuple):
    """How a message ended that did not fail.

    Attributes:
        source: the name of the source that took it; empty if none did.
        key: the key that it was found to have; empty if none was.
        result: what its func returned; None for a proc.
        skipped: why no handler was called, when a hook decided that this is fine.
    """

    source: str
    key: str
    result: object = None
    skipped: RoutingError | None = None

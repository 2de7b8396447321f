"""Stage 1: reading CloudEvents from HTTP requests: binary, structured and batched mode.

Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from workqueue.extras import importing

with importing("events", "receiving CloudEvents"):
    from cloudevents.core.base import BaseCloudEvent
    from cloudevents.core.bindings.http import (
        HTTPMessage,
        from_binary_event,
        from_structured_event,
        to_structured_event,
    )
    from cloudevents.core.exceptions import BaseCloudEventException

from workqueue.errors import WorkQueueError

__all__ = ["BATCH", "Event", "UnparsableEventError", "read_batch", "read_event"]

STRUCTURED, BATCH = "application/cloudevents+json", "application/cloudevents-batch+json"

_REQUIRED = ("specversion", "id", "source", "type")
_WHAT_PARSERS_RAISE = (BaseCloudEventException, ValueError, TypeError, KeyError, AttributeError, RecursionError)


class UnparsableEventError(WorkQueueError, ValueError):
    """This is no CloudEvent; sending it again cannot help."""


@dataclass(frozen=True, slots=True)
class Event:
    """One CloudEvent: its attributes, extensions included, and its data, as JSON has it where it is JSON."""

    attributes: Mapping[str, Any]
    data: Any
    parsed: BaseCloudEvent

    def structured(self) -> bytes:
        """The whole event as one JSON document."""
        return to_structured_event(self.parsed).body

    def __str__(self) -> str:
        return f"{self.attributes['type']} {self.attributes['id']} from {self.attributes['source']}"


def read_event(headers: Mapping[str, str], body: bytes) -> Event:
    """The event of a request in binary or structured mode.

    Raises:
        UnparsableEventError: there is none.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    if lowered.get("content-type", "").lower().startswith(STRUCTURED):
        return _structured(body)
    if "ce-specversion" not in lowered:
        raise UnparsableEventError(
            f"this is no CloudEvent: it has neither ce- headers nor the content type {STRUCTURED} or {BATCH}"
        )
    missing = [name for name in _REQUIRED if not lowered.get(f"ce-{name}")]
    if missing:
        raise UnparsableEventError(f"the CloudEvent has no {', '.join(missing)}")
    try:
        return _event(from_binary_event(HTTPMessage(lowered, body)), timed="ce-time" in lowered)
    except _WHAT_PARSERS_RAISE as error:
        raise UnparsableEventError(f"the CloudEvent cannot be read: {_text(error)}") from error


def read_batch(body: bytes) -> Iterator[Event | UnparsableEventError]:
    """The events of a request in batched mode, each by itself: one that cannot be read does not spoil the others.

    Raises:
        UnparsableEventError: the body is no batch.
    """
    try:
        batch = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnparsableEventError(f"the batch of CloudEvents is no JSON: {error}") from error
    if not isinstance(batch, list):
        raise UnparsableEventError("a batch of CloudEvents is a JSON array")
    for each in batch:
        try:
            yield _structured(json.dumps(each).encode())
        except UnparsableEventError as error:
            yield error


def _structured(body: bytes) -> Event:
    try:
        document = json.loads(body)
        if not isinstance(document, dict):
            raise UnparsableEventError("a CloudEvent is a JSON object")
        missing = [name for name in _REQUIRED if not document.get(name)]
        if missing:
            raise UnparsableEventError(f"the CloudEvent has no {', '.join(missing)}")
        return _event(from_structured_event(HTTPMessage({}, body)), timed="time" in document)
    except UnparsableEventError:
        raise
    except _WHAT_PARSERS_RAISE as error:
        raise UnparsableEventError(f"the CloudEvent cannot be read: {_text(error)}") from error


def _event(parsed: BaseCloudEvent, *, timed: bool) -> Event:
    attributes = dict(parsed.get_attributes())
    if not timed:  # the library says when it read the event
        del attributes["time"]
    return Event(attributes, parsed.get_data(), parsed)


def _text(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

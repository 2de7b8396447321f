"""Stage 7: error events: one CloudEvent for every failure, for alerts and for tables that record them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol
from uuid import uuid4

from dispatcher.broker import FLUSH_TIMEOUT, Broker, Manner
from dispatcher.decision import Failure
from dispatcher.posting import Poster
from workqueue.access.security import ClientSecurity
from workqueue.clock import Clock, SystemClock, from_us
from workqueue.errors import InvalidSettingError
from workqueue.extras import require
from workqueue.metrics import EventResult
from workqueue.options import check_type

__all__ = ["EVENT_TYPE", "CloudEventErrors", "ErrorEvent", "ErrorEvents", "error_event"]

EVENT_TYPE = "dev.chainguard.workqueue.error.v1"

_MANNER = Manner("error event", EVENT_TYPE, "action", room=1000, lost=logging.WARNING)


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """One failed attempt, as it is sent."""

    key: str
    attempts: int
    failure: Failure
    occurred: datetime
    id: str = field(default_factory=lambda: str(uuid4()))

    @property
    def what(self) -> str:
        """What was done with the key."""
        return self.failure.action

    def details(self) -> Mapping[str, object]:
        """The rest of the fields of the table that the Go implementation records these events in."""
        failure = self.failure
        details: dict[str, object] = {"error": failure.error}
        if failure.reason:
            details["nonRetriableReason"] = failure.reason
        if failure.infrastructure:
            details["infrastructure"] = True
        return details


class ErrorEvents(Protocol):
    """Where a dispatcher sends failures. `results` is counted by the sender; a dispatcher's metrics show it."""

    @property
    def results(self) -> Mapping[EventResult, int]: ...

    def send(self, event: ErrorEvent) -> None:
        """Take an event to be sent in the background; never waits and never raises."""

    async def flush(self, timeout: timedelta) -> None:
        """Return once everything taken is sent or lost, at the latest after `timeout`."""

    async def give_up(self) -> None:
        """Drop what is not sent yet; for the end of a process."""


class CloudEventErrors:
    """Sends every failure to a CloudEvents broker.

    Args:
        url: where to POST; http:// or https://. Empty: nothing is sent.
        source: the workqueue's name, `source` and `reconcilerName` of each event.
        structured: the whole event as one JSON document instead of `ce-` headers and a body.
        security: whom to trust, and what to show: CA, client certificate, bearer token.
        proxy: the URL of an HTTP proxy to go through; None = none.
        clock: where time comes from.

    Raises:
        InvalidSettingError: `url` or `proxy` is no HTTP URL, `security` does not fit the URL, or `source` is empty.
        MissingExtraError: there is a URL, and the extra [events] is not installed.
    """

    def __init__(
        self,
        url: str,
        source: str,
        *,
        structured: bool = False,
        security: ClientSecurity | None = None,
        proxy: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        check_type("the source of error events", source, str, "the workqueue's name")
        if not source:
            raise InvalidSettingError("the source of error events is the workqueue's name, not an empty string")
        if url:
            require("events", "sending error events")
        self.results: dict[EventResult, int] = {"sent": 0, "failed": 0, "dropped": 0}
        self.broker: Broker | None = None
        """Where they go; None = nowhere."""

        if url:
            poster = Poster(url, "to send error events to", security or ClientSecurity(), proxy)
            self.broker = Broker(poster, source, _MANNER, structured=structured, clock=clock or SystemClock())
            self.results = self.broker.results

    def send(self, event: ErrorEvent) -> None:
        if self.broker is not None:
            self.broker.send(event)

    async def flush(self, timeout: timedelta = FLUSH_TIMEOUT) -> None:
        if self.broker is not None:
            await self.broker.flush(timeout)

    async def give_up(self) -> None:
        if self.broker is not None:
            await self.broker.give_up()


def error_event(key: str, attempts: int, failure: Failure, now_us: int) -> ErrorEvent:
    """The event of one failed attempt at wall time `now_us`."""
    return ErrorEvent(key, attempts, failure, from_us(now_us))

"""Stage 7: sending failures to a broker, as CloudEvents over HTTP, in the background and at best effort.

Settling never waits for the broker. What the broker does not take in time, or what does not fit into the waiting room,
is lost, counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from dispatcher.decision import MAX_ERROR_BYTES, Failure
from dispatcher.posting import Poster, retry_after
from dispatcher.waiting import all_done
from workqueue.access.security import ClientSecurity
from workqueue.clock import Clock, SystemClock, duration_us, from_us, within
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.extras import require
from workqueue.metrics import EventResult
from workqueue.options import check_type
from workqueue.safe_text import cut, describe, shown_duration

if TYPE_CHECKING:
    from cloudevents.core.bindings.http import HTTPMessage

__all__ = ["EVENT_TYPE", "FLUSH_TIMEOUT", "CloudEventErrors", "ErrorEvent", "ErrorEvents", "error_event"]

log = logging.getLogger(__name__)

EVENT_TYPE = "dev.chainguard.workqueue.error.v1"
FLUSH_TIMEOUT = timedelta(seconds=5)

_IN_FLIGHT = 100
_WAITING = 1000
_RETRY_SECONDS = (0.1, 0.2, 0.4)
_SECONDS_IN_ALL = 30.0
_MOST_HELD_US = duration_us(timedelta(seconds=_SECONDS_IN_ALL))
_TRY_AGAIN = frozenset({404, 408, 409, 425, 429})
"""Beside 5xx. That 404 and 409 may pass is Knative's rule: a broker's address is made while it is called already."""


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """One failed attempt, as it is sent."""

    key: str
    attempts: int
    failure: Failure
    occurred: datetime
    id: str = field(default_factory=lambda: str(uuid4()))


class ErrorEvents(Protocol):
    """Where a dispatcher sends failures. `results` is counted by the sender; a dispatcher's metrics show it."""

    @property
    def results(self) -> dict[EventResult, int]: ...

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
        self._poster = Poster(url, "to send error events to", security or ClientSecurity(), proxy) if url else None
        self._source = source
        self._structured = structured
        self._clock = clock or SystemClock()
        self._waiting: deque[ErrorEvent] = deque()
        self._in_flight = 0
        self._senders: set[asyncio.Task[None]] = set()
        self._active = 0
        self._held_until_us = 0

    def send(self, event: ErrorEvent) -> None:
        if self._poster is None:
            return
        if len(self._waiting) + self._in_flight >= _WAITING + _IN_FLIGHT:
            self._lost("dropped", event, "too many events are waiting for the broker")
            return
        self._waiting.append(event)
        if self._active < _IN_FLIGHT:
            self._active += 1
            sender = asyncio.get_running_loop().create_task(self._send_waiting())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)

    async def flush(self, timeout: timedelta = FLUSH_TIMEOUT) -> None:
        if self._senders:
            try:
                await within(self._clock, timeout.total_seconds(), all_done(self._senders))
            except TimeoutError:
                left, extra = len(self._waiting) + self._in_flight, {"queue": self._source}
                log.warning("%d error events are not sent after %s", left, shown_duration(timeout), extra=extra)

    async def give_up(self) -> None:
        while self._waiting:
            self._lost("dropped", self._waiting.popleft(), "the dispatcher is stopping")
        for sender in tuple(self._senders):
            sender.cancel()
        await all_done(self._senders)
        self._active = 0  # a sender that was cancelled before it began did not count itself out
        await self._close_session()

    async def _send_waiting(self) -> None:
        """One of the senders: works until nothing waits. The last one closes the session, so none is left open."""
        try:
            while self._waiting:
                await self._send_one(self._waiting.popleft())
        finally:
            self._active -= 1
            if not self._active:
                await self._close_session()

    async def _close_session(self) -> None:
        if self._poster is not None:
            await self._poster.close()

    async def _send_one(self, event: ErrorEvent) -> None:
        self._in_flight += 1
        try:
            message = _message(event, self._source, structured=self._structured)
            await within(self._clock, _SECONDS_IN_ALL, self._post(message))
        except asyncio.CancelledError:
            self._lost("dropped", event, "the dispatcher is stopping")
            raise
        except _NotTakenError as error:
            self._lost("failed", event, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next event may fare better
            self._lost("failed", event, describe(error))
        else:
            self.results["sent"] += 1
        finally:
            self._in_flight -= 1

    async def _post(self, message: HTTPMessage) -> None:
        for delay in (*_RETRY_SECONDS, None):
            await self._wait_for_broker()
            refused = await self._post_once(message)
            if refused is None:
                return
            if delay is None or not refused.may_change:
                raise refused
            await self._clock.sleep(delay)

    async def _wait_for_broker(self) -> None:
        """Wait as the broker has asked by `Retry-After`, whichever event it was that it answered so."""
        while (held_us := self._held_until_us - self._clock.steady_us()) > 0:
            if held_us > _MOST_HELD_US:
                left = shown_duration(timedelta(microseconds=held_us))
                raise _NotTakenError(f"the broker asks not to be called for another {left}", may_change=False)
            await self._clock.sleep(held_us / 1e6)

    async def _post_once(self, message: HTTPMessage) -> _NotTakenError | None:
        from aiohttp import ClientError

        assert self._poster is not None
        try:
            async with await self._poster.post(message) as response:
                if 200 <= response.status < 300:
                    return None
                again = response.status in _TRY_AGAIN or response.status >= 500
                if again:
                    self._hold(response.headers.get("retry-after", ""))
                return _NotTakenError(f"the broker answered {response.status}", may_change=again)
        except (ClientError, OSError, StoreUnavailableError) as error:  # the last one: there is no token
            return _NotTakenError(describe(error), may_change=True)

    def _hold(self, asked: str) -> None:
        later = retry_after(asked, from_us(self._clock.wall_us()))
        if later is not None:
            self._held_until_us = max(self._held_until_us, self._clock.steady_us() + duration_us(later))

    def _lost(self, result: EventResult, event: ErrorEvent, why: str) -> None:
        self.results[result] += 1
        extra = {"key": event.key, "queue": self._source}
        log.warning("error event of key %r (%s) lost: %s", event.key, event.failure.action, why, extra=extra)


class _NotTakenError(Exception):
    """The broker did not take an event; `may_change`: it may if asked again."""

    def __init__(self, why: str, *, may_change: bool) -> None:
        super().__init__(why)
        self.may_change = may_change


def _message(event: ErrorEvent, source: str, *, structured: bool) -> HTTPMessage:
    from cloudevents.core.bindings.http import to_binary_event, to_structured_event
    from cloudevents.core.v1.event import CloudEvent

    key, action = cut(event.key, MAX_ERROR_BYTES), event.failure.action
    attributes = {
        "id": event.id,
        "type": EVENT_TYPE,
        "source": source,
        "subject": key,
        "time": event.occurred.astimezone(UTC),
        "datacontenttype": "application/json",
        "action": action,
    }
    made = CloudEvent(attributes, _data(event, source, key))
    return to_structured_event(made) if structured else to_binary_event(made)


def _data(event: ErrorEvent, source: str, key: str) -> dict[str, Any]:
    """The fields of the table that the Go implementation records these events in."""
    failure = event.failure
    data: dict[str, Any] = {
        "key": key,
        "error": failure.error,
        "attempts": event.attempts,
        "action": failure.action,
        "occurAt": event.occurred.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "reconcilerName": source,
    }
    if failure.reason:
        data["nonRetriableReason"] = failure.reason
    if failure.infrastructure:
        data["infrastructure"] = True
    return data


def error_event(key: str, attempts: int, failure: Failure, now_us: int) -> ErrorEvent:
    """The event of one failed attempt at wall time `now_us`."""
    return ErrorEvent(key, attempts, failure, from_us(now_us))

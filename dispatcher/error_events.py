"""Stage 7: telling a broker of failures, as CloudEvents over HTTP, in the background and at best effort.

Settling never waits for the broker. What the broker does not take in time, or what does not fit into the waiting room,
is lost, counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

from dispatcher.decision import MAX_ERROR_BYTES, Failure
from dispatcher.waiting import all_done
from workqueue.clock import Clock, SystemClock, from_us, within
from workqueue.errors import InvalidSettingError
from workqueue.metrics import EventResult
from workqueue.shown import cut, shown_duration, shown_url

if TYPE_CHECKING:
    from aiohttp import ClientSession
    from cloudevents.core.bindings.http import HTTPMessage

__all__ = ["EVENT_TYPE", "FLUSH_TIMEOUT", "CloudEventErrors", "ErrorEvent", "ErrorEvents", "error_event"]

log = logging.getLogger(__name__)

EVENT_TYPE = "dev.chainguard.workqueue.error.v1"
FLUSH_TIMEOUT = timedelta(seconds=5)

_IN_FLIGHT = 100
_WAITING = 1000
_RETRY_SECONDS = (0.1, 0.2, 0.4)
_SECONDS_IN_ALL = 30.0
_TRY_AGAIN = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """One failed attempt, as it is told."""

    key: str
    attempts: int
    failure: Failure
    occurred: datetime
    id: str = field(default_factory=lambda: str(uuid4()))


class ErrorEvents(Protocol):
    """Where a dispatcher tells of failures. `results` is counted by who sends; a dispatcher's metrics show it."""

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
        open_session: makes the aiohttp session, for TLS settings or an Authorization header of your own.
        clock: where time comes from.

    Raises:
        InvalidSettingError: `url` is no HTTP URL, or `source` is empty.
    """

    def __init__(
        self,
        url: str,
        source: str,
        *,
        structured: bool = False,
        open_session: Callable[[], ClientSession] | None = None,
        clock: Clock | None = None,
    ) -> None:
        if url and not url.startswith(("http://", "https://")):
            raise InvalidSettingError(
                f"the URL for error events starts with http:// or https://, unlike {shown_url(url)!r}"
            )
        if not source:
            raise InvalidSettingError("the source of error events is the workqueue's name, not an empty string")
        self.results: dict[EventResult, int] = {"sent": 0, "failed": 0, "dropped": 0}
        self._url = url
        self._source = source
        self._structured = structured
        self._open_session = open_session or _open_session
        self._clock = clock or SystemClock()
        self._waiting: deque[ErrorEvent] = deque()
        self._in_flight = 0
        self._senders: set[asyncio.Task[None]] = set()
        self._active = 0
        self._session: ClientSession | None = None

    def send(self, event: ErrorEvent) -> None:
        if not self._url:
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
        if self._session is not None:
            closing, self._session = self._session, None
            await closing.close()

    async def _send_one(self, event: ErrorEvent) -> None:
        self._in_flight += 1
        try:
            if self._session is None:
                self._session = self._open_session()
            message = _message(event, self._source, structured=self._structured)
            await within(self._clock, _SECONDS_IN_ALL, self._post(self._session, message))
        except asyncio.CancelledError:
            self._lost("dropped", event, "the dispatcher is stopping")
            raise
        except _NotTakenError as error:
            self._lost("failed", event, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the next event may fare better
            self._lost("failed", event, f"{type(error).__name__}: {error}")
        else:
            self.results["sent"] += 1
        finally:
            self._in_flight -= 1

    async def _post(self, session: ClientSession, message: HTTPMessage) -> None:
        for delay in (*_RETRY_SECONDS, None):
            refused = await _post_once(session, self._url, message)
            if refused is None:
                return
            if delay is None or not refused.may_change:
                raise refused
            await self._clock.sleep(delay)

    def _lost(self, result: EventResult, event: ErrorEvent, why: str) -> None:
        self.results[result] += 1
        extra = {"key": event.key, "queue": self._source}
        log.warning("error event of key %r (%s) lost: %s", event.key, event.failure.action, why, extra=extra)


class _NotTakenError(Exception):
    """The broker did not take an event; `may_change`: it may if asked again."""

    def __init__(self, why: str, *, may_change: bool) -> None:
        super().__init__(why)
        self.may_change = may_change


def _open_session() -> ClientSession:
    from aiohttp import ClientSession, ClientTimeout, DummyCookieJar  # half a second to import

    return ClientSession(timeout=ClientTimeout(total=_SECONDS_IN_ALL), cookie_jar=DummyCookieJar())


async def _post_once(session: ClientSession, url: str, message: HTTPMessage) -> _NotTakenError | None:
    from aiohttp import ClientError

    try:
        async with session.post(url, data=message.body, headers=message.headers) as response:
            if response.ok:
                return None
            again = response.status in _TRY_AGAIN or response.status >= 500
            return _NotTakenError(f"the broker answered {response.status}", may_change=again)
    except (ClientError, OSError) as error:
        return _NotTakenError(f"{type(error).__name__}: {error}", may_change=True)


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

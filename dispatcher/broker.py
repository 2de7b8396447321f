"""Stage 7: posting CloudEvents to a broker, in the background and at best effort.

Settling never waits for the broker. What the broker does not take in time, or what does not fit into the waiting room,
is lost, counted and logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from dispatcher.decision import MAX_ERROR_BYTES
from dispatcher.posting import Poster, retry_after
from dispatcher.waiting import all_done
from workqueue.clock import Clock, duration_us, from_us, within
from workqueue.errors import StoreUnavailableError
from workqueue.metrics import EventResult
from workqueue.safe_text import cut, describe, shown_duration

if TYPE_CHECKING:
    from cloudevents.core.bindings.http import HTTPMessage

__all__ = ["FLUSH_TIMEOUT", "Broker", "Event", "Manner", "cloud_event_time"]

log = logging.getLogger(__name__)

FLUSH_TIMEOUT = timedelta(seconds=5)

_IN_FLIGHT = 100
_RETRY_SECONDS = (0.1, 0.2, 0.4)
_SECONDS_IN_ALL = 30.0
_MOST_HELD_US = duration_us(timedelta(seconds=_SECONDS_IN_ALL))
_TRY_AGAIN = frozenset({404, 408, 409, 425, 429})
"""Beside 5xx. That 404 and 409 may pass is Knative's rule: a broker's address is made while it is called already."""


class Event(Protocol):
    """What is sent about a key."""

    @property
    def id(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def attempts(self) -> int: ...
    @property
    def occurred(self) -> datetime: ...

    @property
    def what(self) -> str:
        """What happened to the key, in a word."""

    def details(self) -> Mapping[str, object]:
        """What its JSON data says beside what all events say."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How events of one kind are treated.

    Args:
        kind: what they are, for logs, such as "error event".
        type: of the CloudEvents.
        word: the name of the attribute, and of the field in the data, that says what happened.
        room: how many may wait beside the 100 that are on their way.
        lost: the level at which one that is lost is logged.
    """

    kind: str
    type: str
    word: str
    room: int
    lost: int


class Broker:
    """Posts events of one kind to a broker, at most 100 at a time.

    Args:
        poster: posts to the broker.
        source: the workqueue's name, `source` of each event.
        manner: how they are treated.
        structured: the whole event as one JSON document instead of `ce-` headers and a body.
        clock: where time comes from.
    """

    def __init__(self, poster: Poster, source: str, manner: Manner, *, structured: bool, clock: Clock) -> None:
        self.results: dict[EventResult, int] = {"sent": 0, "failed": 0, "dropped": 0}
        self._poster = poster
        self._source = source
        self._manner = manner
        self._structured = structured
        self._clock = clock
        self._waiting: deque[Event] = deque()
        self._in_flight = 0
        self._senders: set[asyncio.Task[None]] = set()
        self._active = 0
        self._held_until_us = 0

    def beside(self, manner: Manner) -> Broker:
        """One that posts other events to the same place, over connections of its own."""
        return Broker(self._poster.another(), self._source, manner, structured=self._structured, clock=self._clock)

    def send(self, event: Event) -> None:
        """Take an event to be posted; never waits."""
        if len(self._waiting) + self._in_flight >= self._manner.room + _IN_FLIGHT:
            self._lost("dropped", event, "too many events are waiting for the broker")
            return
        self._waiting.append(event)
        if self._active < _IN_FLIGHT:
            self._active += 1
            sender = asyncio.get_running_loop().create_task(self._send_waiting())
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)

    async def flush(self, timeout: timedelta) -> None:
        """Return once everything taken is sent or lost, at the latest after `timeout`."""
        if self._senders:
            try:
                await within(self._clock, timeout.total_seconds(), all_done(self._senders))
            except TimeoutError:
                left, extra = len(self._waiting) + self._in_flight, {"queue": self._source}
                message = "%d %ss are not sent after %s"
                log.warning(message, left, self._manner.kind, shown_duration(timeout), extra=extra)

    async def give_up(self) -> None:
        """Drop what is not sent yet; for the end of a process."""
        while self._waiting:
            self._lost("dropped", self._waiting.popleft(), "the dispatcher is stopping")
        for sender in tuple(self._senders):
            sender.cancel()
        await all_done(self._senders)
        self._active = 0  # a sender that was cancelled before it began did not count itself out
        await self._poster.close()

    async def _send_waiting(self) -> None:
        """One of the senders: works until nothing waits. The last one closes the session, so none is left open."""
        try:
            while self._waiting:
                await self._send_one(self._waiting.popleft())
        finally:
            self._active -= 1
            if not self._active:
                await self._poster.close()

    async def _send_one(self, event: Event) -> None:
        self._in_flight += 1
        try:
            message = self._message(event)
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

    def _message(self, event: Event) -> HTTPMessage:
        from cloudevents.core.bindings.http import to_binary_event, to_structured_event
        from cloudevents.core.v1.event import CloudEvent

        manner, key = self._manner, cut(event.key, MAX_ERROR_BYTES)
        attributes = {
            "id": event.id,
            "type": manner.type,
            "source": self._source,
            "subject": key,
            "time": event.occurred.astimezone(UTC),
            "datacontenttype": "application/json",
            manner.word: event.what,
        }
        data = {
            "key": key,
            "attempts": event.attempts,
            manner.word: event.what,
            "occurAt": cloud_event_time(event.occurred),
            "reconcilerName": self._source,
            **event.details(),
        }
        made = CloudEvent(attributes, data)
        return to_structured_event(made) if self._structured else to_binary_event(made)

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

    def _lost(self, result: EventResult, event: Event, why: str) -> None:
        self.results[result] += 1
        extra = {"key": event.key, "queue": self._source}
        message = "%s of key %r (%s) lost: %s"
        log.log(self._manner.lost, message, self._manner.kind, event.key, event.what, why, extra=extra)


class _NotTakenError(Exception):
    """The broker did not take an event; `may_change`: it may if asked again."""

    def __init__(self, why: str, *, may_change: bool) -> None:
        super().__init__(why)
        self.may_change = may_change


def cloud_event_time(moment: datetime) -> str:
    """RFC 3339 in UTC, as `occurAt` has it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")

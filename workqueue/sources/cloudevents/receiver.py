"""Stage 1: the HTTP endpoint for CloudEvents: 2xx once the key is stored, 4xx for what can never work, else 503.

Knative and other brokers send again after 503, and not after 400, 413, 415 and 422.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from workqueue.extras import importing

with importing("http", "receiving CloudEvents"):
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

from workqueue.errors import InvalidKeyError, InvalidOptionsError, StoreError
from workqueue.key import validate_key
from workqueue.options import Options, check_payload
from workqueue.sources.cloudevents.event import BATCH, Event, UnparsableEventError, read_batch, read_event
from workqueue.sources.cloudevents.fields import KeyOf, UnkeyedEventError
from workqueue.sources.cloudevents.filters import Filter
from workqueue.sources.cloudevents.metrics import EventMetrics
from workqueue.sources.cloudevents.unparsable import Unparsable
from workqueue.sources.resync import Enqueues

__all__ = ["MAX_BODY_BYTES", "Subscription"]

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024
_RETRY_AFTER_SECONDS = "5"
_TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_NEVER = (UnparsableEventError, UnkeyedEventError, InvalidKeyError, InvalidOptionsError)


@dataclass(frozen=True, slots=True)
class Subscription:
    """Turns events into keys.

    Args:
        queue: where the keys go.
        key: how a key is made of an event.
        filters: which events are of interest: those that pass all. Others are acknowledged and forgotten.
        priority: of the keys.
        with_event: keep the newest event of a key as its payload, as structured JSON.
        unparsable: where events go that can never become keys; without it they are refused.
        max_body: the largest request, in bytes.
        metrics: where events are counted, those that pass no filter excepted.
    """

    queue: Enqueues
    key: KeyOf
    filters: Sequence[Filter] = ()
    priority: int = 0
    with_event: bool = False
    unparsable: Unparsable | None = None
    max_body: int = field(default=MAX_BODY_BYTES)
    metrics: EventMetrics = field(default_factory=EventMetrics)

    def app(self) -> Starlette:
        """An ASGI app that takes events at `/`; it can be mounted in any other."""
        return Starlette(routes=[self.route()])

    def route(self) -> Route:
        """The endpoint, for an app that has others beside it."""
        return Route("/", self.receive, methods=["POST", "OPTIONS"])

    async def receive(self, request: Request) -> Response:
        """Answer one request."""
        if request.method == "OPTIONS":
            return _allow(request)
        try:
            body = await _read(request, self.max_body)
        except ClientDisconnect:
            return Response(status_code=400)
        if body is None:
            self.metrics.refused += 1
            return _refuse(413, f"a request with CloudEvents has at most {self.max_body} bytes")
        try:
            return await self._take(request.headers, body)
        except _NEVER as error:  # said by the queue, such as a bucket with a prefix, which takes shorter keys
            self.metrics.refused += 1
            return _refuse(422, str(error))
        except StoreError as error:
            log.warning("CloudEvents are refused for now: %s", error)
            return PlainTextResponse(f"{error}\n", 503, {"Retry-After": _RETRY_AFTER_SECONDS})

    async def _take(self, headers: Mapping[str, str], body: bytes) -> Response:
        try:
            events = self._events(headers, body)
        except UnparsableEventError as error:
            return await self._give_up(headers, body, [str(error)], 400)
        wrong: list[str] = []
        items: dict[str, Options] = {}
        taken = 0
        for place, event in enumerate(events):
            try:
                item = self._item(event)
                items |= item
                taken += len(item)
            except _NEVER as error:
                wrong.append(f"event {place}: {error}" if len(events) > 1 else str(error))
        if items:
            await self.queue.queue_many(items.items())
            self.metrics.stored += taken
        if wrong:
            kept = f"; the other {len(events) - len(wrong)} are taken" if len(events) > 1 else ""
            return await self._give_up(headers, body, wrong, 422, kept)
        return Response(status_code=202)

    def _events(self, headers: Mapping[str, str], body: bytes) -> list[Event | UnparsableEventError]:
        if headers.get("content-type", "").lower().startswith(BATCH):
            return list(read_batch(body))
        return [read_event(headers, body)]

    def _item(self, event: Event | UnparsableEventError) -> dict[str, Options]:
        """The key of an event with its options; nothing if it is of no interest."""
        if isinstance(event, UnparsableEventError):
            raise event
        if not all(interesting(event) for interesting in self.filters):
            return {}
        key = validate_key(self.key.of(event))
        payload = event.structured() if self.with_event else None
        check_payload(payload)
        trace = str(event.attributes.get("traceparent", ""))
        meta = {"traceparent": trace} if _TRACE.fullmatch(trace) else {}
        return {key: Options(priority=self.priority, payload=payload, meta=meta)}

    async def _give_up(
        self, headers: Mapping[str, str], body: bytes, reasons: Sequence[str], status: int, kept: str = ""
    ) -> Response:
        reason = "; ".join(reasons)
        self.metrics.refused += len(reasons)
        if self.unparsable is None:
            return _refuse(status, reason + kept)
        await self.unparsable.keep(headers, body, reason)
        log.warning("an event that can never become a key is a dead letter: %s", reason)
        return Response(status_code=202)


def _allow(request: Request) -> Response:
    """The handshake by which a sender of webhooks asks whether it may send here.

    Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md#4-abuse-protection
    """
    headers = {"Allow": "POST, OPTIONS"}
    if origin := request.headers.get("webhook-request-origin"):
        headers |= {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"}
    return Response(status_code=200, headers=headers)


def _refuse(status: int, reason: str) -> Response:
    log.warning("CloudEvents are refused for good (%d): %s", status, reason)
    return PlainTextResponse(f"{reason}\n", status)


async def _read(request: Request, most: int) -> bytes | None:
    """The body, or None if it is too large; a length that was announced is not believed."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            return None
    return bytes(body)

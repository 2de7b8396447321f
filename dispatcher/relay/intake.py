"""Taking requests in: each is stored before it is acknowledged.

202: it is stored, and `Location` names it. 4xx: it can never be relayed as it is. 503: the store cannot take it now,
and nothing of it was kept. This is an ASGI app without a framework, because it is the hot path of a relay.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from starlette.types import Receive, Scope, Send

from dispatcher.relay.errors import RefusedRequestError, RelayFullError
from dispatcher.relay.headers import Headers, forwarded, idempotency_key, target_of, timeout_of, trace_of
from dispatcher.relay.metrics import Received, RelayMetrics
from dispatcher.relay.outcomes import Outcomes
from dispatcher.relay.pressure import Pressure
from dispatcher.relay.request import RelayedRequest, UnreadableRequestError, new_id, repeatable_id
from dispatcher.relay.settings import RelaySettings
from dispatcher.relay.target import AllowedTargets, Target
from workqueue.errors import InvalidKeyError, InvalidOptionsError, KeyNotFoundError, StoreError
from workqueue.fallbacks import FullQueue
from workqueue.interface import KeyStatus
from workqueue.options import Options

__all__ = ["REQUESTS", "Intake"]

log = logging.getLogger(__name__)

REQUESTS = "/_relay/requests/"
"""Where a stored request can be asked for, by its id."""

_RETRY_AFTER = b"5"


class _HungUpError(Exception):
    """The caller is gone before the whole request was there."""


@dataclass(frozen=True, slots=True)
class _Taken:
    """A request that was acknowledged."""

    id: str
    is_known: bool = False


class Intake:
    """The ASGI app that takes requests in.

    Args:
        queue: where they are stored.
        outcomes: which were delivered.
        allowed: where they may go.
        settings: how large they may be, and how long a call may take.
        metrics: where to count.
        pressure: whether there is room.
    """

    asks_for_tokens = False
    """Whether `Authorization` is for the relay, so that the target must not see it."""

    def __init__(
        self,
        queue: FullQueue,
        outcomes: Outcomes,
        allowed: AllowedTargets,
        settings: RelaySettings,
        metrics: RelayMetrics,
        pressure: Pressure,
    ) -> None:
        self._queue = queue
        self._outcomes = outcomes
        self._allowed = allowed
        self._settings = settings
        self._metrics = metrics
        self._pressure = pressure
        self._clock = queue.equipment.clock
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            taken = await self._take(scope, headers, receive)
        except _HungUpError:
            return
        except RefusedRequestError as error:
            self._count("refused", error)
            await _answer(send, error.status, {"error": error.code, "message": str(error)})
        except (InvalidKeyError, InvalidOptionsError) as error:  # said by the store, which takes less than was asked
            self._count("refused", error)
            await _answer(send, 413, {"error": "too-large", "message": str(error)})
        except StoreError as error:
            self._count("unavailable", error)
            message = "the request was not stored: the store is down or full; send it again"
            await _answer(send, 503, {"error": "unavailable", "message": message}, (b"retry-after", _RETRY_AFTER))
        else:
            self._metrics.received["repeated" if taken.is_known else "stored"] += 1
            place = (REQUESTS + taken.id).encode()
            more = [(b"idempotent-replayed", b"true")] if taken.is_known else []
            await _answer(send, 202, {"id": taken.id}, (b"location", place), *more)

    async def _take(self, scope: Scope, headers: Headers, receive: Receive) -> _Taken:
        target = self._target(headers)
        path = _path(scope)
        timeout = timeout_of(headers, self._settings.timeout)
        if self._pressure.is_full:
            raise RelayFullError
        repeated = idempotency_key(headers)
        request = RelayedRequest(
            method=scope["method"],
            target=target,
            path=path,
            headers=forwarded(headers, drop_authorization=self.asks_for_tokens),
            body=await _body(receive, self._settings.max_body),
            timeout=timeout,
            received_us=self._clock.wall_us(),
            repeatable=bool(repeated),
        )
        if repeated:
            return await self._store_once(repeatable_id(target, repeated), request)
        return await self._store(new_id(target), request)

    def _target(self, headers: Headers) -> Target:
        target = target_of(headers)
        if target is None:
            message = "say where the request is to go: X-Dispatcher-Original-Host: http://host:port"
            raise RefusedRequestError(400, "no-target", message)
        refusal = self._allowed.why_refused(target)
        if refusal:
            raise RefusedRequestError(403, "target-not-allowed", refusal)
        return target

    async def _store(self, id_: str, request: RelayedRequest) -> _Taken:
        await self._queue.queue(id_, Options(payload=request.to_payload(), meta=trace_of(request.headers)))
        self._pressure.added()
        log.debug("request %s is stored: %s", id_, request.shown, extra={"key": id_, "queue": self._metrics.name})
        return _Taken(id_)

    async def _store_once(self, id_: str, request: RelayedRequest) -> _Taken:
        """Store a request that may be a repetition; repetitions at the same time wait for each other."""
        async with self._locks.setdefault(id_, asyncio.Lock()):
            known = await self._known(id_)
            if known is None:
                return await self._store(id_, request)
        if known != request.fingerprint:
            message = "this Idempotency-Key came with another request before: a new request takes a new one"
            raise RefusedRequestError(422, "idempotency-key", message)
        return _Taken(id_, is_known=True)

    async def _known(self, id_: str) -> str | None:
        """The fingerprint of the request `id_` if it waits or was delivered; None if it is unknown, or was given up."""
        outcome = await self._outcomes.read(id_)
        if outcome is not None:
            return outcome.fingerprint
        try:
            state = await self._queue.get(id_)
        except KeyNotFoundError:
            return None
        if state.status not in (KeyStatus.QUEUED, KeyStatus.IN_PROGRESS) or state.payload is None:
            return None
        try:
            return RelayedRequest.from_payload(state.payload).fingerprint
        except UnreadableRequestError:
            return None

    def _count(self, result: Received, error: Exception) -> None:
        self._metrics.received[result] += 1
        level = logging.WARNING if result == "unavailable" else logging.INFO
        log.log(level, "a request is %s: %s", result, error, extra={"queue": self._metrics.name})


def _path(scope: Scope) -> str:
    """Path and query as they came, which a target may distinguish from what is decoded and encoded again."""
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    if not path.startswith("/"):
        raise RefusedRequestError(400, "path", "a path begins with /")
    return f"{path}?{query}" if query else path


async def _body(receive: Receive, most: int) -> bytes:
    """The whole body; a length that was announced is not believed."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUpError
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise RefusedRequestError(413, "too-large", f"a request has a body of at most {most} bytes")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def _answer(send: Send, status: int, document: dict[str, Any], *more: tuple[bytes, bytes]) -> None:
    body = json.dumps(document).encode() + b"\n"
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

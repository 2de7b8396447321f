"""What operators ask of a relay: where a request is, what was given up, and to send or remove that.

| | |
|---|---|
| `GET /_relay/requests/ID` | where it is, its tries, its last error |
| `GET /_relay/requests/ID/content` | the request itself, less credentials |
| `DELETE /_relay/requests/ID` | cancel it, or remove it from those given up |
| `POST /_relay/requests/ID/redrive` | send it again after it was given up |
| `GET /_relay/dead-letters` | those given up; `?target=host:port`, `?older_than=1h`, `?limit=100` |
| `POST /_relay/dead-letters/redrive` | send them all again, or those of a target |
| `DELETE /_relay/dead-letters` | remove them all, or those of a target |
| `GET /_relay/delivered` | outcomes that are kept; `?target=`, `?limit=` |
| `GET /_relay/targets` | the targets that are down |
"""

from __future__ import annotations

import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dispatcher.relay.delivery import TRIES, tries_before
from dispatcher.relay.errors import RefusedRequestError
from dispatcher.relay.outcomes import Outcome, Outcomes
from dispatcher.relay.request import RelayedRequest, UnreadableRequestError
from workqueue.backends.url import duration
from workqueue.clock import from_us
from workqueue.errors import KeyNotFoundError, StoreError
from workqueue.fallbacks import FullQueue
from workqueue.interface import DeadLetteredKey, KeyState, KeyStatus
from workqueue.options import Options

__all__ = ["Desk", "purge"]

log = logging.getLogger(__name__)

_LIMIT = 100
_MOST = 1000  # outcomes are read with the requests that are kept with them
_SECRET = frozenset(("authorization", "cookie"))
_STATES = {
    KeyStatus.QUEUED: "waiting",
    KeyStatus.IN_PROGRESS: "in-hand",
    KeyStatus.DEAD_LETTER: "dead-lettered",
}
_Endpoint = Callable[[Any, Request], Awaitable[Response]]


def _answering(endpoint: _Endpoint) -> _Endpoint:
    """An endpoint that answers its errors as JSON."""

    @wraps(endpoint)
    async def answering(self: Any, request: Request) -> Response:
        try:
            return await endpoint(self, request)
        except RefusedRequestError as error:
            return _error(error.status, error.code, str(error))
        except UnreadableRequestError as error:
            return _error(409, "unreadable", str(error))
        except StoreError as error:
            log.warning("a question to the relay cannot be answered: %s", error)
            return _error(503, "unavailable", "the store is down; ask again")

    return answering


class Desk:
    """The endpoints.

    Args:
        queue: where the requests are.
        outcomes: which were delivered.
        down: the targets that are down, and for how many seconds.
    """

    def __init__(self, queue: FullQueue, outcomes: Outcomes, down: Callable[[], Mapping[str, float]]) -> None:
        self._queue = queue
        self._outcomes = outcomes
        self._down = down
        self._clock = queue.equipment.clock

    def routes(self) -> list[Route]:
        """For an app that has others beside them."""
        one = "/_relay/requests/{target}/{number}"
        return [
            Route(one, self.show, methods=["GET"]),
            Route(one, self.cancel, methods=["DELETE"]),
            Route(f"{one}/content", self.show_content, methods=["GET"]),
            Route(f"{one}/redrive", self.redrive, methods=["POST"]),
            Route("/_relay/dead-letters", self.list_letters, methods=["GET"]),
            Route("/_relay/dead-letters", self.drop_letters, methods=["DELETE"]),
            Route("/_relay/dead-letters/redrive", self.redrive_letters, methods=["POST"]),
            Route("/_relay/delivered", self.list_delivered, methods=["GET"]),
            Route("/_relay/targets", self.list_targets, methods=["GET"]),
        ]

    @_answering
    async def show(self, request: Request) -> Response:
        """Where one request is."""
        id_ = _id(request)
        try:
            state = await self._queue.get(id_)
        except KeyNotFoundError:
            outcome = await self._outcomes.read(id_)
            if outcome is None:
                raise _unknown(id_) from None
            return JSONResponse(_delivered(id_, outcome))
        return JSONResponse(_shown(state))

    @_answering
    async def show_content(self, request: Request) -> Response:
        """One request as it is sent, less its credentials: while it is here, or as long as it is kept."""
        id_ = _id(request)
        try:
            payload = (await self._queue.get(id_)).payload
        except KeyNotFoundError:
            payload = await self._outcomes.request(id_)
        if payload is None:
            raise _unknown(id_)
        return JSONResponse({"id": id_} | _content(RelayedRequest.from_payload(payload)))

    @_answering
    async def cancel(self, request: Request) -> Response:
        """Remove one request, unless it is in hand."""
        id_ = _id(request)
        found = await self._queue.find(id_)
        if found.queued is not None and found.in_progress is None and await found.queued.drop():
            log.info("request %s was cancelled", id_, extra={"key": id_})
            return Response(status_code=204)
        if found.queued is not None or found.in_progress is not None:
            return _error(409, "in-hand", "the request is being sent, or was a moment ago: ask again")
        if found.dead_letter is not None and await found.dead_letter.drop():
            log.info("request %s, which was given up, was removed", id_, extra={"key": id_})
            return Response(status_code=204)
        raise _unknown(id_)

    @_answering
    async def redrive(self, request: Request) -> Response:
        """Send one request again that was given up."""
        id_ = _id(request)
        letter = (await self._queue.find(id_)).dead_letter
        if letter is None:
            return _error(404, "not-dead-lettered", f"{id_} is not among the requests that were given up")
        return JSONResponse({"redriven": int(await self._send_again(letter))}, 202)

    @_answering
    async def list_letters(self, request: Request) -> Response:
        """Those given up, oldest first as far as the store keeps an order."""
        limit, found = _limit(request), []
        async for letter in self._letters(request):
            found.append(_given_up(letter))
            if len(found) >= limit:
                break
        return JSONResponse({"dead_letters": found})

    @_answering
    async def redrive_letters(self, request: Request) -> Response:
        """Send all again that were given up, or those asked for."""
        redriven = 0
        async for letter in self._letters(request):
            redriven += await self._send_again(letter)
        log.info("%d requests that were given up are sent again", redriven)
        return JSONResponse({"redriven": redriven}, 202)

    @_answering
    async def drop_letters(self, request: Request) -> Response:
        """Remove all that were given up, or those asked for."""
        dropped = 0
        async for letter in self._letters(request):
            dropped += await letter.drop()
        log.info("%d requests that were given up were removed", dropped)
        return JSONResponse({"dropped": dropped})

    @_answering
    async def list_delivered(self, request: Request) -> Response:
        """Outcomes that are kept."""
        target, limit = request.query_params.get("target", ""), _limit(request)
        listed = await self._outcomes.listing(_MOST if target else limit)
        found = [_delivered(id_, outcome) for id_, outcome in listed if id_.startswith(f"{target}/" if target else "")]
        return JSONResponse({"delivered": found[:limit]})

    @_answering
    async def list_targets(self, request: Request) -> Response:
        """The targets that this process takes to be down."""
        return JSONResponse({"down": {target: round(seconds, 1) for target, seconds in self._down().items()}})

    async def _send_again(self, letter: DeadLetteredKey) -> bool:
        """Queue a request that was given up, with all of its tries."""
        if not await letter.requeue():
            return False
        if tries_before(letter.meta):
            await self._queue.queue(letter.key, Options(meta={TRIES: "0"}))
        return True

    async def _letters(self, request: Request) -> AsyncIterator[DeadLetteredKey]:
        target, text = request.query_params.get("target", ""), request.query_params.get("older_than", "")
        before = from_us(self._clock.wall_us())
        if text:
            try:
                before -= duration(text)
            except ValueError as error:
                raise RefusedRequestError(400, "older_than", f"older_than: {error}") from None
        async for letter in _given_up_before(self._queue, before):
            if not target or letter.key.startswith(f"{target}/"):
                yield letter


async def _given_up_before(queue: FullQueue, before: datetime) -> AsyncIterator[DeadLetteredKey]:
    """The requests that were given up before that time."""
    async for letter in (await queue.enumerate(0)).dead_letters:
        if letter.failed_time <= before:
            yield letter


async def purge(queue: FullQueue, keep: timedelta) -> int:
    """Remove the requests that were given up longer ago than `keep`; returns how many.

    Raises:
        StoreError: the store failed; some may be removed.
    """
    before, dropped = from_us(queue.equipment.clock.wall_us()) - keep, 0
    async for letter in _given_up_before(queue, before):
        dropped += await letter.drop()
    return dropped


def _id(request: Request) -> str:
    return f"{request.path_params['target']}/{request.path_params['number']}"


def _limit(request: Request) -> int:
    text = request.query_params.get("limit", str(_LIMIT))
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) <= _MOST):
        raise RefusedRequestError(400, "limit", f"limit takes a number from 1 to {_MOST}")
    return int(text)


def _unknown(id_: str) -> RefusedRequestError:
    message = f"{id_} is not here: it was never stored, or it was delivered and its outcome is not kept"
    return RefusedRequestError(404, "unknown", message)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": code, "message": message}, status)


def _shown(state: KeyState) -> dict[str, Any]:
    tries = tries_before(state.meta) + state.attempts
    error = state.error or state.last_error or state.meta.get("put-off", "")
    document = {"id": state.key, "state": _STATES.get(state.status, "unknown"), "tries": tries, "last_error": error}
    if state.not_before is not None:
        document["next_try"] = state.not_before.isoformat()
    if state.failed_time is not None:
        document["given_up"] = state.failed_time.isoformat()
    return document | _asked(state.payload)


def _given_up(letter: DeadLetteredKey) -> dict[str, Any]:
    tries = tries_before(letter.meta) + letter.attempts
    document = {"id": letter.key, "state": "dead-lettered", "tries": tries, "last_error": letter.error}
    return document | {"given_up": letter.failed_time.isoformat()} | _asked(letter.payload)


def _asked(payload: bytes | None) -> dict[str, Any]:
    """What a request asks for, without its query and headers, which may hold secrets."""
    if payload is None:
        return {}
    try:
        asked = RelayedRequest.from_payload(payload)
    except UnreadableRequestError:
        return {}
    return {
        "target": str(asked.target),
        "method": asked.method,
        "path": asked.path.partition("?")[0],
        "body_bytes": len(asked.body),
        "received": from_us(asked.received_us).isoformat(),
    }


def _content(asked: RelayedRequest) -> dict[str, Any]:
    headers = [[name, "…" if name in _SECRET else value] for name, value in asked.headers]
    return {
        "target": str(asked.target),
        "method": asked.method,
        "path": asked.path,
        "headers": headers,
        "body_base64": b64encode(asked.body).decode(),
    }


def _delivered(id_: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "id": id_,
        "state": "delivered",
        "tries": outcome.tries,
        "status": outcome.status,
        "target": outcome.target,
        "method": outcome.method,
        "path": outcome.path,
        "received": from_us(outcome.received_us).isoformat(),
        "delivered": from_us(outcome.delivered_us).isoformat(),
        "forgotten": from_us(outcome.until_us).isoformat(),
    }

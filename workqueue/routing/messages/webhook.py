"""Stage 5: messages over HTTP: an ASGI app that answers its caller once the message was handled."""

from __future__ import annotations

import logging
import math

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from workqueue.errors import InfrastructureError, NonRetriableError, StoreUnavailableError
from workqueue.outcomes import RequeueAfter
from workqueue.routing.errors import DecodeError, InvalidPayloadError, NoHandlerError, RoutingError
from workqueue.routing.messages.handlers import as_json
from workqueue.routing.messages.message import Processed
from workqueue.routing.messages.router import Router

__all__ = ["MAX_BODY_BYTES", "webhook"]

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1024 * 1024

_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (NoHandlerError, 404),
    (DecodeError, 422),
    (InvalidPayloadError, 422),
    (RoutingError, 400),
    (NonRetriableError, 422),
    (InfrastructureError, 503),
    (StoreUnavailableError, 503),
)
"""The first that fits; anything else is 500."""


def webhook(router: Router, *, max_body_bytes: int = MAX_BODY_BYTES) -> Starlette:
    """An ASGI app: POST / processes the body as a message, with the request's headers. Mounts in any other.

    | answer | when |
    |---|---|
    | 200 with the func's result as JSON | it was handled; `{}` by a proc, or where a hook has skipped it |
    | 400 | no source takes it, or its source cannot parse it |
    | 404 | no handler takes its key |
    | 422 | its payload is not what the handler takes, or the handler raised NonRetriableError |
    | 413 | the body is longer than `max_body_bytes` |
    | 503 | the handler asks for it again (the answer has Retry-After), or what it depends on is down |
    | 500 | the handler raised anything else |

    What a handler raised is logged but not shown to the caller. Put `workqueue.access.bearer.BearerTokens` around the
    app to ask for tokens.
    """

    async def received(request: Request) -> Response:
        body = await _read(request, max_body_bytes)
        if body is None:
            return PlainTextResponse(f"a message has at most {max_body_bytes} bytes\n", 413)
        try:
            return _answer(await router.process(body, request.headers))
        except Exception as error:  # noqa: BLE001 - every one of them is answered
            return _refusal(error)

    return Starlette(routes=[Route("/", received, methods=["POST"])])


def _answer(processed: Processed) -> Response:
    return Response(as_json(processed.result), media_type="application/json")


def _refusal(error: Exception) -> Response:
    if isinstance(error, RequeueAfter):
        seconds = math.ceil(error.next_delay().total_seconds())
        return PlainTextResponse("again, later\n", 503, headers={"retry-after": str(seconds)})
    status = next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)
    if isinstance(error, RoutingError):
        log.warning("a message was refused: %s", error)
        return PlainTextResponse(f"{error}\n", status)
    log.error("the handler of a message failed", exc_info=error)
    return PlainTextResponse(f"the handler failed: {type(error).__name__}\n", status)


async def _read(request: Request, limit: int) -> bytes | None:
    """The body, or None if it is too long; a length that was announced is not believed."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            return None
        parts.append(part)
    return b"".join(parts)

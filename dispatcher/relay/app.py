"""Who answers what on the port of a relay: a request that names a target is relayed, whatever its path.

Two places are the relay's own whatever a request names: the probes, since they are open to strangers and a request at
their paths would go past the tokens, and everything below `/_relay/`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dispatcher.health import Health
from dispatcher.relay.desk import Desk
from dispatcher.relay.headers import TARGET_HEADERS
from dispatcher.relay.intake import Intake
from workqueue.web.http_limits import PROBES

__all__ = ["relay_app"]

_DESK = "/_relay/"
_METRICS = "/metrics"
_TARGETS = frozenset(name.encode() for name in TARGET_HEADERS)
_NOT_RELAYED = PlainTextResponse(
    "/healthz and /readyz are the relay's own: a request at these paths is not relayed\n", 400
)


def relay_app(intake: Intake, desk: Desk, health: Health, scraped: Callable[[Request], Awaitable[Response]]) -> ASGIApp:
    """The app of a relay.

    Args:
        intake: takes requests that name a target, and says what is missing where none is named.
        desk: answers below `/_relay/`.
        health: answers the probes.
        scraped: answers `/metrics`.
    """

    async def live(request: Request) -> Response:
        return _probe(health.why_dead())

    async def ready(request: Request) -> Response:
        return _probe(health.why_unready())

    own = Starlette(routes=[Route("/healthz", live), Route("/readyz", ready), Route(_METRICS, scraped), *desk.routes()])

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        path, is_named = scope["path"], any(name in _TARGETS for name, _ in scope["headers"])
        if path in PROBES:
            return await (_NOT_RELAYED if is_named else own)(scope, receive, send)
        if path.startswith(_DESK) or (path == _METRICS and not is_named):
            return await own(scope, receive, send)
        return await intake(scope, receive, send)

    return app


def _probe(trouble: str) -> Response:
    return PlainTextResponse(f"{trouble}\n", 503) if trouble else PlainTextResponse("ok\n")

"""Stage 7: a small server for what programs show that speak gRPC only: `/metrics` and the probes."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from workqueue.telemetry.exposition import Exposition
from workqueue.web.server import serving

__all__ = ["serve_metrics", "watching"]


def serve_metrics(
    host: str,
    port: int,
    exposition: Exposition,
    *,
    tls: ssl.SSLContext | None = None,
    guard: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> AbstractAsyncContextManager[int]:
    """Serve what `watching` shows until the block ends; yields the port.

    `guard` may wrap the app, for instance in a `BearerTokens`.

    Raises:
        InvalidSettingError: the address cannot be listened on.
    """
    return serving(guard(watching(exposition)), host, port, tls=tls)


def watching(
    exposition: Exposition, ready: Callable[[], bool] = lambda: True, others: Sequence[BaseRoute] = ()
) -> Starlette:
    """`/metrics`, `/healthz` and `/readyz` of a program whose work is elsewhere: over gRPC, say.

    Args:
        exposition: answers `/metrics`.
        ready: whether the program welcomes calls.
        others: what else the program serves over HTTP.
    """

    async def readiness(request: Request) -> Response:
        return PlainTextResponse("ok\n") if ready() else PlainTextResponse("draining\n", 503)

    routes = [Route("/metrics", exposition.scraped), Route("/healthz", _healthy), Route("/readyz", readiness)]
    return Starlette(routes=[*routes, *others])


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("ok\n")  # answering at all proves that the event loop turns

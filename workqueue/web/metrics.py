"""Stage 7: a small server for what programs show that speak gRPC only: `/metrics` and `/healthz`."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from workqueue.telemetry.exposition import Exposition
from workqueue.web.server import serving

__all__ = ["serve_metrics"]


def serve_metrics(
    host: str,
    port: int,
    exposition: Exposition,
    *,
    tls: ssl.SSLContext | None = None,
    guard: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> AbstractAsyncContextManager[int]:
    """Serve `/metrics` and `/healthz` until the block ends, for programs that speak gRPC only; yields the port.

    `guard` may wrap the app, for instance in a `BearerTokens`.

    Raises:
        InvalidSettingError: the address cannot be listened on.
    """
    routes = [Route("/metrics", exposition.scraped), Route("/healthz", _healthy)]
    return serving(guard(Starlette(routes=routes)), host, port, tls=tls)


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("ok\n")  # answering at all proves that the event loop turns

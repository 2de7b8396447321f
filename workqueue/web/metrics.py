"""What programs show over HTTP that speak gRPC otherwise: `/metrics` and the probes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from workqueue.telemetry.exposition import Exposition

__all__ = ["watching"]


async def _nothing() -> str:
    return ""


def watching(
    exposition: Exposition, why_unready: Callable[[], Awaitable[str]] = _nothing, others: Sequence[BaseRoute] = ()
) -> Starlette:
    """`/metrics`, `/healthz` and `/readyz` of a program whose work is elsewhere: over gRPC, say.

    Args:
        exposition: answers `/metrics`.
        why_unready: why the program does not welcome calls, '' if it does.
        others: what else the program serves over HTTP.
    """

    async def readiness(request: Request) -> Response:
        trouble = await why_unready()
        return PlainTextResponse(f"{trouble}\n", 503) if trouble else PlainTextResponse("ok\n")

    routes = [Route("/metrics", exposition.scraped), Route("/healthz", _healthy), Route("/readyz", readiness)]
    return Starlette(routes=[*routes, *others])


async def _healthy(request: Request) -> Response:
    return PlainTextResponse("ok\n")  # answering at all proves that the event loop turns

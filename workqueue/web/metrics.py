"""What programs show over HTTP that speak gRPC otherwise: `/metrics` and the probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from workqueue.telemetry.exposition import Exposition

__all__ = ["watching"]


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

"""Stage 7: what a controller shows over HTTP: `/healthz`, `/readyz` and `/metrics`, whether it leads or stands by."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from workqueue.extras import importing

with importing("http", "a controller with probes"):
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route

from dispatcher.loop import Dispatcher
from workqueue.access.security import ServerSecurity
from workqueue.fallbacks import FullQueue
from workqueue.metrics import metrics_of
from workqueue.telemetry.exposition import Exposition, Identity
from workqueue.telemetry.gauges import GaugeRefresher
from workqueue.web.front import Front

__all__ = ["ControllerProbes"]


class ControllerProbes:
    """Answers probes and scrapes for whichever dispatcher works at the moment; without one it is alive and ready.

    Args:
        name: the service in metric labels.
    """

    def __init__(self, name: str) -> None:
        self._exposition = Exposition(Identity(service=name))
        self._dispatcher: Dispatcher | None = None

    @asynccontextmanager
    async def serving(self, host: str, port: int | None, *, insecure: bool) -> AsyncIterator[None]:
        """Serve until the block ends; without a port, serve nothing.

        Raises:
            InvalidSettingError: the address cannot be listened on, or is public and `insecure` was not said.
        """
        if port is None:
            yield
            return
        front = Front(host, port, None, ServerSecurity(insecure=insecure))
        routes = [
            Route("/metrics", self._exposition.scraped),
            Route("/healthz", self._live),
            Route("/readyz", self._ready),
        ]
        async with front.opened(Starlette(routes=routes), "health and metrics"):
            yield

    @asynccontextmanager
    async def of(self, queue: FullQueue, dispatcher: Dispatcher) -> AsyncIterator[None]:
        """Answer for this dispatcher until the block ends."""
        metrics = metrics_of(queue)
        self._dispatcher = dispatcher
        self._exposition.queues[:] = [metrics]
        self._exposition.dispatchers[:] = [dispatcher.metrics]
        try:
            async with GaugeRefresher(queue, metrics, [dispatcher.metrics]):
                yield
        finally:
            self._dispatcher = None

    async def _live(self, request: Request) -> Response:
        return _answer(self._dispatcher.health.why_dead() if self._dispatcher is not None else "")

    async def _ready(self, request: Request) -> Response:
        return _answer(self._dispatcher.health.why_unready() if self._dispatcher is not None else "")


def _answer(trouble: str) -> Response:
    return PlainTextResponse(f"{trouble}\n", 503) if trouble else PlainTextResponse("ok\n")

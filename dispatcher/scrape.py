"""Stage 7: `/metrics` of an app that has nothing else to show than one queue and its dispatcher."""

from __future__ import annotations

from typing import Self

from starlette.requests import Request
from starlette.responses import Response

from dispatcher.setup import Setup
from workqueue.metrics import metrics_of
from workqueue.telemetry.exposition import Exposition
from workqueue.telemetry.gauges import GaugeRefresher

__all__ = ["Scrape"]


class Scrape:
    """The endpoint. As an async context manager it keeps the gauges fresh; without, they are as old as the last scrape.

    Args:
        setup: the queue and the dispatcher.
    """

    def __init__(self, setup: Setup) -> None:
        counted = metrics_of(setup.queue)
        self._gauges = GaugeRefresher(setup.queue, counted, [setup.metrics], clock=setup.clock)
        self._exposition = Exposition(queues=[counted], dispatchers=[setup.metrics], clock=setup.clock)

    async def __aenter__(self) -> Self:
        await self._gauges.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._gauges.__aexit__(*exc_info)

    async def scraped(self, request: Request) -> Response:
        """Answer one scrape."""
        self._gauges.nudge()  # without waiting: a store that is down must not take the other metrics with it
        return await self._exposition.scraped(request)

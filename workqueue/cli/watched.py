"""What every program shows that serves until it is told to stop: metrics and probes over HTTP."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from workqueue.metrics import QueueMetrics
    from workqueue.telemetry.samples import SampleSource
    from workqueue.web.front import Front

__all__ = ["Ready", "watched"]


class Ready(Protocol):
    """Who knows whether a program welcomes work."""

    @property
    def ready(self) -> bool: ...


@asynccontextmanager
async def watched(
    front: Front,
    metrics: Sequence[QueueMetrics] = (),
    others: Sequence[BaseRoute] = (),
    sources: Sequence[SampleSource] = (),
) -> AsyncIterator[Callable[[Ready], None]]:
    """Serve metrics and probes until the block ends; ready is who was given to what this yields, while it is.

    `others` are served on the same port; `sources` count beside the queues.
    """
    from prometheus_client import REGISTRY

    from workqueue.telemetry.exposition import Exposition, identity
    from workqueue.web.metrics import watching

    exposition = Exposition(identity(os.environ), metrics, others=[REGISTRY], sources=sources)
    followed: list[Ready] = []
    app = watching(exposition, lambda: any(each.ready for each in followed), others)
    async with front.opened(app, "health and metrics"):
        yield followed.append

"""What every program shows that serves until it is stopped: metrics and probes over HTTP."""

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

    async def why_unready(self) -> str:
        """Why it does not, in words that any stranger may read; '' if it does."""


@asynccontextmanager
async def watched(
    front: Front,
    metrics: Sequence[QueueMetrics] = (),
    others: Sequence[BaseRoute] = (),
    sources: Sequence[SampleSource] = (),
) -> AsyncIterator[Callable[[Ready], None]]:
    """Serve metrics and probes until the block ends; it is ready while the one is who is given to what this yields.

    `others` are served on the same port; `sources` count beside the queues.
    """
    from prometheus_client import REGISTRY

    from workqueue.telemetry.exposition import Exposition, identity
    from workqueue.web.metrics import watching

    exposition = Exposition(identity(os.environ), metrics, others=[REGISTRY], sources=sources)
    followed: list[Ready] = []

    async def why_unready() -> str:
        return await followed[0].why_unready() if followed else "starting"

    app = watching(exposition, why_unready, others)
    async with front.opened(app, "health and metrics"):
        yield followed.append

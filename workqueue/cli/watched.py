"""What every program shows that serves until it is told to stop: metrics and probes over HTTP."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from workqueue.programs.access import ListenFlags

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from workqueue.access.security import ServerSecurity
    from workqueue.metrics import QueueMetrics

__all__ = ["Ready", "watched"]

log = logging.getLogger(__name__)


class Ready(Protocol):
    """Who knows whether a program welcomes work."""

    @property
    def ready(self) -> bool: ...


@asynccontextmanager
async def watched(
    listen: ListenFlags,
    port: int,
    security: ServerSecurity,
    metrics: Sequence[QueueMetrics] = (),
    others: Sequence[BaseRoute] = (),
) -> AsyncIterator[Callable[[Ready], None]]:
    """Serve metrics and probes until the block ends; ready is who was given to what this yields, while it is.

    `others` are served on the same port.
    """
    from prometheus_client import REGISTRY

    from workqueue.access.security import check_listen
    from workqueue.rpc.channel import join_host_port
    from workqueue.telemetry.exposition import Exposition, identity
    from workqueue.web.bearer import guarded
    from workqueue.web.metrics import watching
    from workqueue.web.probes import probing
    from workqueue.web.server import serving as http_serving

    check_listen(listen.host, port, security)
    exposition = Exposition(identity(os.environ), metrics, others=[REGISTRY])
    tls = security.tls.http_context() if security.tls else None
    followed: list[Ready] = []
    app = watching(exposition, lambda: any(each.ready for each in followed), others)
    async with (
        http_serving(guarded(app, security), listen.host, port, tls=tls) as bound,
        probing(app, listen.host, listen.probe_port) as probes,
    ):
        log.info("health and metrics on %s", join_host_port(listen.host, bound))
        if probes is not None:
            log.info("plaintext probes on %s", join_host_port(listen.host, probes))
        yield followed.append

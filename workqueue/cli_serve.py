"""The commands that serve until they are told to stop: receive."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated

from workqueue.access import GRPC_PORT, HTTP_PORT, PORT, ListenFlags
from workqueue.backends import open_queue
from workqueue.flags import Flag, with_flags
from workqueue.generic import FullQueue
from workqueue.logs import configure_logging
from workqueue.program import serve
from workqueue.settings import LogFlags, QueueFlags

__all__ = ["PortFlags", "receive"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PortFlags:
    """The ports of a server that speaks gRPC to callers and HTTP to whoever watches it."""

    grpc_port: Annotated[int, Flag("gRPC; 0 = any free one", ("WORKQUEUE_GRPC_PORT", "PORT"), PORT)] = GRPC_PORT
    http_port: Annotated[int, Flag("/healthz and /metrics; 0 = any free one", ("WORKQUEUE_HTTP_PORT",), PORT)] = (
        HTTP_PORT
    )


@with_flags
def receive(where: QueueFlags, listen: ListenFlags, ports: PortFlags, logs: LogFlags) -> None:
    """Serve a queue to producers over gRPC.

    SIGTERM and SIGINT stop it once the calls under way are answered.
    """
    configure_logging(logs.log_level, logs.log_format)
    serve(_receive(where.shared_url(), listen, ports))


async def _receive(url: str, listen: ListenFlags, ports: PortFlags) -> None:
    from workqueue.service import receive as receiver

    security = listen.security()
    async with (
        open_queue(url) as queue,
        watched(queue, listen, ports.http_port),
        receiver(queue, host=listen.host, port=ports.grpc_port, security=security) as server,
    ):
        await server.wait()


@asynccontextmanager
async def watched(queue: FullQueue, listen: ListenFlags, port: int) -> AsyncIterator[None]:
    """Serve /healthz and the queue's /metrics until the block ends."""
    from workqueue.exposition import Exposition, identity, serve_metrics
    from workqueue.gauges import GaugeRefresher
    from workqueue.metrics import metrics_of

    tls = listen.security().tls
    metrics = metrics_of(queue)
    exposition = Exposition(identity(os.environ), [metrics])
    context = tls.http_context() if tls else None
    async with GaugeRefresher(queue, metrics), serve_metrics(listen.host, port, exposition, tls=context) as bound:
        log.info("health and metrics on port %d", bound)
        yield

"""What the commands have in common that enqueue what they watch: where keys go, and what is shown meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from workqueue.cli.keys import ReceiverFlags, opened
from workqueue.cli.watched import Ready, watched
from workqueue.options import MAX_PRIORITY
from workqueue.programs.access import HTTP_PORT, PORT, ListenFlags
from workqueue.programs.converters import whole
from workqueue.programs.flags import Flag
from workqueue.programs.logs import configure_logging
from workqueue.programs.settings import LogFlags, QueueFlags

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from workqueue.fallbacks import FullQueue
    from workqueue.rpc.client import Client
    from workqueue.telemetry.samples import SampleSource

__all__ = ["PRIORITY", "Always", "SourceFlags", "SourcePort", "showing"]

PRIORITY = whole(-MAX_PRIORITY, MAX_PRIORITY)


@dataclass(frozen=True, slots=True)
class SourcePort:
    """Where a source is watched."""

    http_port: Annotated[int, Flag("probes and /metrics; 0 = any free one", ("WORKQUEUE_HTTP_PORT",), PORT)] = HTTP_PORT


@dataclass(frozen=True, slots=True)
class SourceFlags:
    """Where keys go, how a receiver is asked, and what is logged."""

    where: QueueFlags
    remote: ReceiverFlags
    listen: ListenFlags
    logs: LogFlags

    def opened(self) -> Client | FullQueue:
        """The queue, or the receiver in front of it, to be entered; logging is configured."""
        configure_logging(self.logs.log_level, self.logs.log_format)
        self.listen.front(0)  # what is wrong with it is said before a store is opened, or made
        return opened(self.where, self.remote)


class Always:
    """Ready from the start."""

    async def why_unready(self) -> str:
        return ""


@asynccontextmanager
async def showing(
    queue: object,
    listen: ListenFlags,
    port: int,
    others: Sequence[BaseRoute] = (),
    sources: Sequence[SampleSource] = (),
) -> AsyncIterator[Callable[[Ready], None]]:
    """Serve probes, what `queue` and `sources` count, and `others` until the block ends (see `watched`)."""
    from workqueue.metrics import metrics_of

    async with watched(listen.front(port), [metrics_of(queue)], others, sources) as follow:
        yield follow

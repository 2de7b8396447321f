"""The command that answers KEDA how many dispatchers a queue can use: scaler."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from workqueue.backends import QueueURL, open_queue
from workqueue.cli.receivers import PortFlags
from workqueue.cli.watched import watched
from workqueue.errors import InvalidSettingError
from workqueue.programs.access import ListenFlags
from workqueue.programs.converters import PAIR
from workqueue.programs.ending import run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.logs import configure_logging
from workqueue.programs.settings import LogFlags, QueueFlags

if TYPE_CHECKING:
    from workqueue.web.front import Front

__all__ = ["ScaleFlags", "scaler"]


@dataclass(frozen=True, slots=True)
class ScaleFlags:
    """Which queues to count."""

    queues: Annotated[
        tuple[tuple[str, str], ...],
        Flag("instead of --queue: name=URL; triggers say which by their metadata 'queue'", takes=PAIR, many=True),
    ] = ()

    def urls(self, where: QueueFlags) -> Mapping[str, str]:
        """The queues' URLs by name.

        Raises:
            InvalidSettingError: a URL is none, both flags were given, or two queues have one name.
        """
        if not self.queues:
            url = where.url()
            return {QueueURL.parse(url).name(): url}
        if where.queue is not None:
            raise InvalidSettingError("--queue and --queues: give one of them")
        if len(dict(self.queues)) < len(self.queues):
            raise InvalidSettingError("--queues: each name may be given once")
        with naming("--queues"):
            return {name: QueueFlags(url).url() for name, url in self.queues}


@with_flags
def scaler(scaled: ScaleFlags, where: QueueFlags, listen: ListenFlags, ports: PortFlags, logs: LogFlags) -> None:
    """Answer KEDA how many dispatchers a queue can use.

    An external scaler over gRPC (trigger type external or external-push). The metric is eligible keys and keys in
    progress, at most the stored limit; the metadata 'keysPerReplica' say how many one replica is for.
    """
    configure_logging(logs.log_level, logs.log_format)
    run_server(_scale(scaled.urls(where), listen.front(ports.http_port), ports.grpc_port))


async def _scale(urls: Mapping[str, str], front: Front, grpc_port: int) -> None:
    from workqueue.rpc.scaler import scale

    async with AsyncExitStack() as stack:
        queues = {name: await stack.enter_async_context(open_queue(url)) for name, url in urls.items()}
        follow = await stack.enter_async_context(watched(front))
        server = scale(queues, host=front.host, port=grpc_port, security=front.security)
        follow(await stack.enter_async_context(server))
        await server.wait()

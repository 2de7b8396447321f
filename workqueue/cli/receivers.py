"""The commands that serve until they are stopped: receive, hyperqueue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from workqueue.backends import open_queue
from workqueue.cli.watched import watched
from workqueue.errors import InvalidSettingError
from workqueue.programs.access import GRPC_PORT, HTTP_PORT, PORT, CallFlags, ListenFlags
from workqueue.programs.converters import choice, listed
from workqueue.programs.ending import run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.logs import configure_logging
from workqueue.programs.settings import LogFlags, QueueFlags

if TYPE_CHECKING:
    from workqueue.web.front import Front

__all__ = ["PortFlags", "ShardFlags", "hyperqueue", "receive"]


@dataclass(frozen=True, slots=True)
class PortFlags:
    """The ports of a server that speaks gRPC to callers and HTTP to whoever watches it."""

    grpc_port: Annotated[int, Flag("gRPC; 0 = any free one", ("WORKQUEUE_GRPC_PORT", "PORT"), PORT)] = GRPC_PORT
    http_port: Annotated[int, Flag("probes and /metrics; 0 = any free one", ("WORKQUEUE_HTTP_PORT",), PORT)] = HTTP_PORT


@with_flags
def receive(where: QueueFlags, listen: ListenFlags, ports: PortFlags, logs: LogFlags) -> None:
    """Serve a queue to producers over gRPC.

    A signal stops it once the calls under way are answered.
    """
    configure_logging(logs.log_level, logs.log_format)
    run_server(_receive(where.url(), listen.front(ports.http_port), ports.grpc_port))


async def _receive(url: str, front: Front, grpc_port: int) -> None:
    from workqueue.metrics import metrics_of
    from workqueue.rpc.receiver import receive as receiver
    from workqueue.telemetry.gauges import GaugeRefresher

    async with open_queue(url) as queue:
        metrics = metrics_of(queue)
        async with (
            GaugeRefresher(queue, metrics),
            watched(front, [metrics]) as follow,
            receiver(queue, host=front.host, port=grpc_port, security=front.security) as server,
        ):
            follow(server)
            await server.wait()


@dataclass(frozen=True, slots=True)
class ShardFlags:
    """What a hyperqueue stands before."""

    shards: Annotated[
        tuple[str, ...],
        Flag("addresses of receivers; their order counts and must stay", ("SHARD_URLS",), listed("URL")),
    ] = ()
    hash: Annotated[
        str,
        Flag(
            "how keys are placed: as Go does, or moving few on a resize",
            ("WORKQUEUE_HASH",),
            choice("fnv", "rendezvous"),
        ),
    ] = "fnv"


@with_flags
def hyperqueue(shards: ShardFlags, calls: CallFlags, listen: ListenFlags, ports: PortFlags, logs: LogFlags) -> None:
    """Serve many receivers as one over gRPC.

    Each key belongs to one shard. A shard that is down fails its own keys only.
    """
    configure_logging(logs.log_level, logs.log_format)
    if not shards.shards:
        raise InvalidSettingError("--shards or SHARD_URLS: it takes the addresses of receivers, separated by commas")
    _check(shards.shards)
    run_server(_route(shards, calls, listen.front(ports.http_port), ports.grpc_port))


def _check(shards: Sequence[str]) -> None:
    from workqueue.rpc.channel import Address

    with naming("--shards or SHARD_URLS"):
        for shard in shards:
            Address.parse(shard)


async def _route(shards: ShardFlags, calls: CallFlags, front: Front, grpc_port: int) -> None:
    from workqueue.rpc.sharding import route

    routed = route(
        shards.shards,
        hashing=shards.hash,
        host=front.host,
        port=grpc_port,
        security=front.security,
        shard_security=calls.security,
    )
    async with watched(front) as follow, routed as server:
        follow(server)
        await server.wait()

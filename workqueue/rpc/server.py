"""The one shape in which every gRPC role is served: it listens, answers health checks, and drains on exit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha import reflection

from workqueue.access.addresses import addresses_of, join_host_port, listening_sockets
from workqueue.access.security import ServerSecurity, check_listen
from workqueue.errors import InvalidSettingError
from workqueue.rpc.credentials import server_credentials
from workqueue.rpc.entrance import Entrance
from workqueue.rpc.grpc_limits import GrpcLimits
from workqueue.rpc.health import Health
from workqueue.rpc.pb.workqueue_pb2_grpc import add_WorkqueueServiceServicer_to_server
from workqueue.rpc.wire import SERVICE
from workqueue.signals import Drains, until_signalled

__all__ = ["WORKQUEUE", "GrpcServer", "Listen", "Service"]

log = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0

_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Otherwise a second server on the same port starts happily, and each gets half of the calls.
    ("grpc.so_reuseport", 0),
    # A caller that vanished without a word is noticed within 80 s, and its callbacks are cancelled.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where and how a server listens.

    Args:
        host: an address or a name; another than loopback needs TLS or `security.insecure`.
        port: 0 for any free one.
        security: certificate, tokens.
        limits: what callers may cost.

    Raises:
        InvalidSettingError: as `check_listen`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    security: ServerSecurity = field(default_factory=ServerSecurity)
    limits: GrpcLimits = field(default_factory=GrpcLimits)

    def __post_init__(self) -> None:
        check_listen(self.host, self.port, self.security)


@dataclass(frozen=True, slots=True)
class Service:
    """A gRPC service: its full name, and the generated function that adds a servicer of it to a server."""

    name: str
    add: Callable[[Any, grpc.aio.Server], None]


WORKQUEUE = Service(SERVICE, add_WorkqueueServiceServicer_to_server)


class GrpcServer:
    """Serves one role of a service, with health and reflection; an async context manager that drains on exit.

    Args:
        servicer: the role: receiver, reconciler, router or scaler.
        listen: where and how.
        drain: drained on exit while calls are still answered; the service is not ready by then.
        interceptors: run after the entrance, for metrics and tracing.
        service: of which service it is a role.
        why_unready: why calls are not welcome, '' if they are; what is behind the servicer knows, such as its store.
    """

    def __init__(
        self,
        servicer: object,
        listen: Listen,
        *,
        drain: Drains | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
        service: Service = WORKQUEUE,
        why_unready: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self.listen = listen
        self.port = listen.port
        self._servicer = servicer
        self._drain = drain
        self._interceptors = interceptors
        self._service = service
        self._behind = why_unready
        self._health = Health(service.name, self.why_unready)
        self._stopping = asyncio.Event()
        self._started = False
        self._until_left = contextlib.ExitStack()
        self._server: grpc.aio.Server

    async def __aenter__(self) -> Self:
        self._server = self._build()
        self.port = _bind(self._server, self.listen)
        await self._server.start()
        self._started = True
        log.info("listening on %s", join_host_port(self.listen.host, self.port))
        return self

    def _build(self) -> grpc.aio.Server:
        entrance = Entrance(self.listen.security.tokens, self.listen.limits)
        server = grpc.aio.server(
            interceptors=(entrance, *self._interceptors), options=(*_OPTIONS, *self.listen.limits.options())
        )
        self._service.add(self._servicer, server)
        add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((self._service.name, HEALTH, reflection.SERVICE_NAME), server)
        return server

    async def __aexit__(self, *exc_info: object) -> None:
        with self._until_left:  # a second signal must not end the process while it drains
            self.stop()
            try:
                if self._drain is not None:
                    await self._drain.drain()
            finally:
                await self._server.stop(_GRACE_SECONDS)

    async def why_unready(self) -> str:
        """Why calls are not welcome: it has not started, it drains, or its store does not work; '' if they are."""
        if not self._started:
            return "starting"
        if self._stopping.is_set():
            return "draining"
        return await self._behind() if self._behind is not None else ""

    def stop(self) -> None:
        """Let `wait` return. Nothing is drained before the block is left."""
        self._stopping.set()
        self._health.changed()

    async def wait(self) -> None:
        """Return once somebody called `stop`, or a signal came in; then leave the block, which drains.

        A further signal hurries the drain.
        """
        self._until_left.enter_context(until_signalled(self.stop, self._hurry))
        await self._stopping.wait()

    def _hurry(self) -> None:
        if self._drain is not None:
            self._drain.hurry()


def _bind(server: grpc.aio.Server, listen: Listen) -> int:
    """Listen on every address of the host, on one port.

    gRPC says why it cannot in its own log only; so sockets of ours try it first.
    """
    addresses, port = addresses_of(listen.host), listen.port
    for each in listening_sockets(listen.host, port):
        port = port or (int(each.getsockname()[1]) if len(addresses) > 1 else 0)
        each.close()
    credentials = server_credentials(listen.security.tls) if listen.security.tls is not None else None
    bound = [_bind_one(server, join_host_port(address, port), credentials) for address in addresses]
    if not any(bound):
        raise InvalidSettingError(f"cannot listen on {join_host_port(listen.host, port)}")
    return max(bound)


def _bind_one(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """The port; 0 for an address that is not this machine's, as localhost may have one."""
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        return 0

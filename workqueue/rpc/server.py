"""Stages 1, 5: the one shape in which every gRPC role is served: it listens, tells its health, and drains on exit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from workqueue.access.addresses import addresses_of, join_host_port, listening_sockets
from workqueue.access.security import ServerSecurity, check_listen
from workqueue.errors import InvalidSettingError
from workqueue.rpc.bearer import RequireToken
from workqueue.rpc.channel import MAX_MESSAGE_BYTES
from workqueue.rpc.credentials import server_credentials
from workqueue.rpc.pb.workqueue_pb2_grpc import add_WorkqueueServiceServicer_to_server
from workqueue.rpc.wire import SERVICE
from workqueue.signals import Drains, until_signalled

__all__ = ["WORKQUEUE", "GrpcServer", "Listen", "Service"]

log = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0
_MAX_HEADER_BYTES = 16 * 1024

_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Otherwise a second server on the same port starts happily, and each gets half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_metadata_size", _MAX_HEADER_BYTES),
    ("grpc.absolute_max_metadata_size", _MAX_HEADER_BYTES),
    # A caller that vanished without a word is noticed within 80 s, and its callbacks are cancelled.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # Behind a plain TCP balancer a connection lasts for ever on one replica; this spreads callers over new ones.
    ("grpc.max_connection_age_ms", 600_000),
)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where and how a server listens.

    Args:
        host: an address or a name; another than loopback needs TLS or `security.insecure`.
        port: 0 for any free one.
        security: certificate, tokens.
        max_message_bytes: the largest request accepted.

    Raises:
        InvalidSettingError: as `check_listen`.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    security: ServerSecurity = field(default_factory=ServerSecurity)
    max_message_bytes: int = MAX_MESSAGE_BYTES

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
        drain: drained on exit while calls are still answered; health says NOT_SERVING by then.
        interceptors: run after the token check, for metrics and tracing.
        service: of which service it is a role.
    """

    def __init__(
        self,
        servicer: object,
        listen: Listen,
        *,
        drain: Drains | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor[Any, Any]] = (),
        service: Service = WORKQUEUE,
    ) -> None:
        self.listen = listen
        self.port = listen.port
        self._servicer = servicer
        self._drain = drain
        self._interceptors = interceptors
        self._service = service
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # its stubs lack aio
        self._stopping = asyncio.Event()
        self._started = False
        self._until_left = contextlib.ExitStack()
        self._server: grpc.aio.Server

    async def __aenter__(self) -> Self:
        self._server = self._build()
        self.port = _bind(self._server, self.listen)
        await self.set_serving(True)
        await self._server.start()
        self._started = True
        log.info("listening on %s", join_host_port(self.listen.host, self.port))
        return self

    def _build(self) -> grpc.aio.Server:
        tokens = self.listen.security.tokens
        server = grpc.aio.server(
            interceptors=(*([RequireToken(tokens)] if tokens else ()), *self._interceptors),
            options=(*_OPTIONS, ("grpc.max_receive_message_length", self.listen.max_message_bytes)),
        )
        self._service.add(self._servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((self._service.name, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        return server

    async def __aexit__(self, *exc_info: object) -> None:
        with self._until_left:  # a second signal must not end the process while it drains
            self.stop()
            await self._health.enter_graceful_shutdown()
            try:
                if self._drain is not None:
                    await self._drain.drain()
            finally:
                await self._server.stop(_GRACE_SECONDS)

    async def set_serving(self, serving: bool) -> None:
        """What health checks are told: `serving` or not, for instance because the store cannot be reached."""
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", self._service.name):
            await self._health.set(name, status)

    @property
    def ready(self) -> bool:
        """Whether calls are welcome: it has started, and nobody has told it to stop."""
        return self._started and not self._stopping.is_set()

    def stop(self) -> None:
        """Let `wait` return. Nothing is drained before the block is left."""
        self._stopping.set()

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

    gRPC tells only its own log why it cannot; so sockets of ours try it first.
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

"""What callers may cost a gRPC server: bytes, streams, calls, connections, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from workqueue.access.files import open_files_allowed
from workqueue.options import MAX_PAYLOAD_BYTES

__all__ = ["MAX_HEADER_BYTES", "MAX_MESSAGE_BYTES", "RECONCILER_LIMITS", "GrpcLimits", "receiver_limits"]

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest message accepted: sixteen times the largest payload, and a few thousand keys to queue."""

MAX_HEADER_BYTES = 16 * 1024 * 1024
"""The largest trailers that our clients accept, as Go's do: a Go reconciler sends the whole text of its error."""

_MIB = 1024 * 1024
_LARGEST_BYTES = 64 * _MIB
_MOST_CONNECTIONS = 4096


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """What one caller, and all of them together, may ask of a server.

    Args:
        message_bytes: the largest request.
        header_bytes: the largest headers of a call; they are read before anybody knows who calls.
        message_time: from the headers to the end of the request.
        streams: calls at once on one connection; a caller that has more waits by itself.
        calls: at once, over all connections; more are answered UNAVAILABLE. Health checks do not count.
        connections: open at once; 0 = half of the files that the process may open, at most 4096.
        handshake_time: from the connection to its first HTTP/2 settings, TLS included.
        idle_time: a connection is closed when it has been without a call for this long; half of one's headers are none.
            gRPC has no other way to get rid of those who fill a server with silent connections.
        age: a connection is asked to close after this, so that callers behind a TCP balancer find new replicas.
        call_time: how long its calls may go on then.
    """

    message_bytes: int = MAX_MESSAGE_BYTES
    header_bytes: int = 64 * 1024
    message_time: timedelta = timedelta(seconds=20)
    streams: int = 100
    calls: int = 1000
    connections: int = 0
    handshake_time: timedelta = timedelta(seconds=10)
    idle_time: timedelta = timedelta(seconds=20)
    age: timedelta = timedelta(minutes=10)
    call_time: timedelta = timedelta(minutes=1)

    @property
    def most_connections(self) -> int:
        """How many connections may be open."""
        return self.connections or max(min(open_files_allowed() // 2, _MOST_CONNECTIONS), 8)

    def options(self) -> list[tuple[str, Any]]:
        """These as gRPC takes them."""
        return [
            ("grpc.max_receive_message_length", self.message_bytes),
            # Between a soft and a hard limit gRPC refuses at random.
            ("grpc.max_metadata_size", self.header_bytes),
            ("grpc.absolute_max_metadata_size", self.header_bytes),
            ("grpc.max_concurrent_streams", self.streams),
            # It counts calls that have ended, too, and resets those that waited for their turn: 800 of a burst of 1,000
            # at a limit of 100. Without it the limit holds as well, and all of them are answered.
            ("grpc.http.overload_protection", 0),
            ("grpc.max_allowed_incoming_connections", self.most_connections),
            ("grpc.server_handshake_timeout_ms", _ms(self.handshake_time)),
            ("grpc.max_connection_idle_ms", _ms(self.idle_time)),
            ("grpc.max_connection_age_ms", _ms(self.age)),
            ("grpc.max_connection_age_grace_ms", _ms(self.call_time)),
        ]


def receiver_limits(max_payload: int = MAX_PAYLOAD_BYTES) -> GrpcLimits:
    """The limits of a receiver: its requests hold one payload, and its calls are short."""
    return GrpcLimits(message_bytes=max(min(2 * max_payload, _LARGEST_BYTES), _MIB))


RECONCILER_LIMITS = GrpcLimits(streams=1000, calls=10_000, call_time=timedelta(hours=24))
"""The limits of a reconciler: a call lasts as long as its callback, and a dispatcher has as many as its concurrency."""


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)

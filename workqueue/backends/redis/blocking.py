"""A blocking connection, for what must go on while the event loop is blocked: renewal, finding a master."""

from __future__ import annotations

from typing import Any

from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import TimeoutError as RedisTimeoutError

from workqueue.backends.redis.scripts import Argument, pack

__all__ = ["BlockingConnection"]


class BlockingConnection:
    """Connected from the start; one command at a time.

    Args:
        kwargs: what redis-py's connection is made with; with TLS if it has `ssl_` settings.
        timeout: seconds for connecting, and for each command unless it says otherwise.
    """

    def __init__(self, kwargs: dict[str, Any], timeout: float) -> None:
        kind: Any = _kind(kwargs)
        connection: Any = kind(**kwargs, socket_timeout=timeout)  # redis-py leaves its methods untyped
        connection.connect()
        self._connection = connection

    def ask(self, *command: Argument, timeout: float) -> Any:
        """The reply to one command, within `timeout` seconds; an error reply is raised."""
        self._connection.send_packed_command([pack(*command)], check_health=False)
        if not self._connection.can_read(timeout):  # read_response takes a timeout since redis-py 8 alone
            raise RedisTimeoutError(f"no reply within {timeout:g} s")
        return self._connection.read_response()

    def close(self) -> None:
        """Close it."""
        self._connection.disconnect()


def _kind(kwargs: dict[str, Any]) -> type:
    if "path" in kwargs:
        return UnixDomainSocketConnection
    return SSLConnection if "ssl_ca_certs" in kwargs else Connection

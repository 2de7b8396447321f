"""One connection to the master of a queue, over which many script calls travel in one turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import BusyLoadingError, NoPermissionError, ReadOnlyError, ResponseError

from workqueue.backends.redis.address import Address, Locator, RedisSettings
from workqueue.backends.redis.errors import is_passing, typed_error
from workqueue.backends.redis.scripts import Argument, Script, pack
from workqueue.backends.redis.wire import Reply, Wire
from workqueue.errors import StoreUnusableError

__all__ = ["Command", "Done", "Link", "connect"]

log = logging.getLogger(__name__)

Done = Callable[[list[Reply], Exception | None], None]
"""Receives the replies, an error reply as a ResponseError, and why there are no more, or no better ones."""

_OLDEST = (6, 2)  # ZMSCORE, and scripts whose effects are replicated


class Command(Protocol):
    """One script call as the link needs to see it."""

    @property
    def script(self) -> Script: ...
    def arguments(self) -> Sequence[Argument]:
        """What follows the script: number of keys, keys, arguments."""


class Link:
    """A connection that is opened when it is needed; what is sent over it is answered before more is sent."""

    def __init__(self, settings: RedisSettings, locator: Locator) -> None:
        self._settings = settings
        self._locator = locator
        self._wire: Wire | None = None
        self._loaded: set[str] = set()
        self._replies: list[Reply] = []
        self._loading = 0  # replies still to come that nobody asked for: to SCRIPT LOAD
        self._refused: Exception | None = None  # what one of them said
        self._expected = 0
        self._done: Done | None = None
        self._was_master = False
        self.address = settings.hosts[0]
        """The node that is, or was last, connected to."""

    @property
    def is_open(self) -> bool:
        return self._wire is not None

    async def open(self, timeout: float) -> None:
        """Find the master and connect to it, unless connected; each step takes at most `timeout` seconds.

        Raises:
            StoreUnusableError: it is too old, no Redis for this URL, or refuses us.
            ReadOnlyError, BusyLoadingError: it is a replica, or not ready, at the moment.
        """
        if self._wire is not None:
            return
        self.address = await asyncio.to_thread(self._locator.locate, timeout)
        self._loaded.clear()
        connection = await connect(self._settings, self.address, timeout)
        try:
            async with asyncio.timeout(timeout):
                await self._inspect(connection)
            self._wire = Wire(connection, self._take, self._lose)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise

    def drop(self) -> None:
        """Close the connection; the next `open` looks for the master again. What is under way gets no answer."""
        self._done = None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()

    def give_up(self, error: Exception) -> None:
        """Close the connection, and end what is under way with `error`: nothing more will be answered."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        self._end(error)

    def forget_scripts(self) -> None:
        """The server lost its scripts: send them along again."""
        self._loaded.clear()

    def send(self, commands: Sequence[Command], after: Sequence[Sequence[Argument]], done: Done) -> None:
        """Send all commands at once.

        Args:
            commands: the script calls, in order.
            after: plain commands that follow.
            done: called, once, when everything is answered or nothing more will be.

        Raises:
            ConnectionError: not connected.
        """
        if self._wire is None:
            raise ConnectionError("not connected")
        packed: list[bytes] = []
        self._loading, self._refused = self._load_missing(commands, packed), None
        packed += [pack("EVALSHA", command.script.sha, *command.arguments()) for command in commands]
        packed += [pack(*command) for command in after]
        self._replies, self._expected, self._done = [], len(packed) - self._loading, done
        self._wire.write(b"".join(packed))

    def _take(self, reply: Reply) -> None:
        if self._loading:
            self._loading -= 1
            if isinstance(reply, Exception):
                self._refused = reply
            return
        self._replies.append(reply)
        if len(self._replies) == self._expected:
            self._end(self._refused)

    def _lose(self, error: Exception) -> None:
        self._wire = None
        self._end(error)

    def _end(self, error: Exception | None) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._replies, error)

    def _load_missing(self, commands: Sequence[Command], packed: list[bytes]) -> int:
        for script in {command.script.sha: command.script for command in commands}.values():
            if script.sha not in self._loaded:
                self._loaded.add(script.sha)
                packed.append(pack("SCRIPT", "LOAD", script.text))
        return len(packed)

    async def _inspect(self, connection: AbstractConnection) -> None:
        """Refuse a server on which a queue would not work, and warn about one that may lose keys."""
        await connection.send_packed_command(pack("INFO"), check_health=False)
        try:
            reply = await connection.read_response()
        except NoPermissionError:
            log.warning("Redis at %s does not permit INFO: version and settings go unchecked", self.address)
            return
        self._judge(_info(reply))

    def _judge(self, info: dict[str, str]) -> None:
        version = info.get("redis_version", "0.0")
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
            raise StoreUnusableError(f"Redis at {self.address} is too old: {version}, at least 6.2 is needed")
        is_cluster, wants_cluster = info.get("cluster_enabled") == "1", self._settings.scheme == "redis+cluster"
        if is_cluster != wants_cluster:
            kind, scheme = ("a", "redis+cluster") if is_cluster else ("no", "redis")
            raise StoreUnusableError(
                f"Redis at {self.address} is {kind} cluster; the URL should begin with {scheme}://"
            )
        if info.get("loading") == "1":
            raise BusyLoadingError("it says loading:1")
        self._check_role(info.get("role") == "slave")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            log.warning(
                "Redis at %s has maxmemory-policy %s and may evict queued keys; set it to noeviction",
                self.address,
                policy,
            )

    def _check_role(self, is_replica: bool) -> None:
        if is_replica and not self._was_master and self._settings.scheme in ("redis", "rediss", "redis+unix"):
            raise StoreUnusableError(
                f"Redis at {self.address} is a read-only replica; point the URL at the master, or use redis+sentinel://"
            )
        if is_replica:  # a failover is under way, or a name has not followed it yet
            raise ReadOnlyError("it says role:slave")
        self._was_master = True


async def connect(settings: RedisSettings, address: Address, timeout: float) -> AbstractConnection:
    """A connection to `address`, authenticated, within `timeout` seconds."""
    kind: Any = UnixDomainSocketConnection if not address.port else SSLConnection if settings.tls else Connection
    connection: AbstractConnection = kind(**settings.connection(address, timeout), socket_timeout=None)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
    except ResponseError as error:  # to AUTH, SELECT or CLIENT: no script of ours was there yet
        await connection.disconnect(nowait=True)
        if is_passing(error):
            raise
        raise typed_error(error, str(address), "refused the connection") from error
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


def _info(reply: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in lines}

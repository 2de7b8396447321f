"""Stages 1-6: one connection to the master of a queue, over which many script calls travel in one turn."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

from redis.asyncio.connection import Connection, SSLConnection
from redis.exceptions import BusyLoadingError, NoPermissionError, ReadOnlyError, ResponseError

from workqueue.backends.redis_address import Address, Locator, RedisSettings
from workqueue.backends.redis_scripts import Argument, Script, pack
from workqueue.errors import StoreUnusableError

__all__ = ["Command", "Link", "Reply", "connect"]

log = logging.getLogger(__name__)

Reply = Any
"""What hiredis makes of a reply: int, bytes, None, a list of these, or a ResponseError."""

_OLDEST = (6, 2)  # ZMSCORE, and scripts whose effects are replicated


class Command(Protocol):
    """One script call as the link needs to see it."""

    @property
    def script(self) -> Script: ...
    def arguments(self) -> Sequence[Argument]:
        """What follows the script: number of keys, keys, arguments."""


class Link:
    """A connection that is opened when it is needed. Used by one task at a time."""

    def __init__(self, settings: RedisSettings, locator: Locator) -> None:
        self._settings = settings
        self._locator = locator
        self._connection: Connection | None = None
        self._loaded: set[str] = set()
        self._was_master = False
        self.address = settings.hosts[0]
        """The node that is, or was last, connected to."""

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    async def open(self, timeout: float) -> None:
        """Find the master and connect to it, unless connected; each step takes at most `timeout` seconds.

        Raises:
            StoreUnusableError: it is too old, no Redis for this URL, or refuses us.
            ReadOnlyError, BusyLoadingError: it is a replica, or not ready, at the moment.
        """
        if self._connection is not None:
            return
        self.address = await asyncio.to_thread(self._locator.locate, timeout)
        self._loaded.clear()
        connection = await connect(self._settings, self.address, timeout)
        try:
            await self._inspect(connection)
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        self._connection = connection

    async def drop(self) -> None:
        """Close the connection; the next `open` looks for the master again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    def forget_scripts(self) -> None:
        """The server lost its scripts: send them along again."""
        self._loaded.clear()

    async def exchange(self, commands: Sequence[Command], replies: list[Reply], *after: Sequence[Argument]) -> None:
        """Send all commands at once and append their replies, so that what came before a failure is not lost.

        Args:
            commands: the script calls, in order.
            replies: is appended to; an error reply is a ResponseError in it.
            after: plain commands that follow.
        """
        connection = self._connection
        if connection is None:
            raise ConnectionError("not connected")
        packed: list[bytes] = []
        ignored = self._load_missing(commands, packed)
        packed += [pack("EVALSHA", command.script.sha, *command.arguments()) for command in commands]
        packed += [pack(*command) for command in after]
        await connection.send_packed_command(packed, check_health=False)
        for _ in range(ignored):
            await _read(connection)
        for _ in range(len(packed) - ignored):
            replies.append(await _read(connection))  # noqa: PERF401  what came before a failure is kept

    def _load_missing(self, commands: Sequence[Command], packed: list[bytes]) -> int:
        for script in {command.script.sha: command.script for command in commands}.values():
            if script.sha not in self._loaded:
                self._loaded.add(script.sha)
                packed.append(pack("SCRIPT", "LOAD", script.text))
        return len(packed)

    async def _inspect(self, connection: Connection) -> None:
        """Refuse a server on which a queue would not work, and warn about one that may lose keys."""
        await connection.send_packed_command(pack("INFO"), check_health=False)
        reply = await _read(connection)
        if isinstance(reply, NoPermissionError):
            log.warning("Redis at %s does not permit INFO: version and settings go unchecked", self.address)
            return
        if isinstance(reply, ResponseError):
            raise reply
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
            raise BusyLoadingError("it says loading:1", status_code="LOADING")
        self._check_role(info.get("role") == "slave")
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            log.warning(
                "Redis at %s has maxmemory-policy %s and may evict queued keys; set it to noeviction",
                self.address,
                policy,
            )

    def _check_role(self, is_replica: bool) -> None:
        if is_replica and not self._was_master and self._settings.scheme in ("redis", "rediss"):
            raise StoreUnusableError(
                f"Redis at {self.address} is a read-only replica; point the URL at the master, or use redis+sentinel://"
            )
        if is_replica:  # a failover is under way, or a name has not followed it yet
            raise ReadOnlyError("it says role:slave", status_code="READONLY")
        self._was_master = True


async def connect(settings: RedisSettings, address: Address, timeout: float) -> Connection:
    """A connection to `address`, authenticated, within `timeout` seconds."""
    kind = SSLConnection if settings.tls else Connection
    connection = kind(**settings.connection(address, timeout), socket_timeout=None)
    try:
        async with asyncio.timeout(timeout):
            await connection.connect()  # type: ignore[no-untyped-call]
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def _read(connection: Connection) -> Reply:
    try:
        return await connection.read_response()
    except ResponseError as error:  # one command's; the others of the turn are answered all the same
        return error


def _info(reply: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in reply.decode("utf-8", "replace").splitlines() if ":" in line)
    return {name: value for name, _, value in lines}

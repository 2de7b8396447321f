"""Stage 2: which Redis to talk to: what a URL says, and where the master of a queue is at the moment.

Finding the master is blocking code, because two sides need it: the event loop (in a thread), and the lease renewer,
which must find a new master even while the loop is blocked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from redis.crc import key_slot
from redis.exceptions import ResponseError

from workqueue.backends.redis.blocking import BlockingConnection
from workqueue.backends.redis.errors import CONNECTION_ERRORS, typed_error
from workqueue.backends.url import QueueURL, switch
from workqueue.errors import InvalidSettingError, StoreError, StoreUnavailableError, StoreUnusableError
from workqueue.lease import DEFAULT_LEASE, LeaseTimes
from workqueue.safe_text import shown_url

__all__ = ["Address", "Locator", "RedisSettings"]

_DEFAULT_PORTS = {"redis": 6379, "redis+unix": 0, "rediss": 6379, "redis+sentinel": 26379, "redis+cluster": 6379}


class Address(NamedTuple):
    """A host and a port, or the path of a unix socket and 0."""

    host: str
    port: int

    def __str__(self) -> str:
        if not self.port:
            return self.host
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class RedisSettings:
    """What the URL says about the connection (docs/backends.md describes each setting)."""

    scheme: str
    hosts: tuple[Address, ...]
    meta_key: str
    master: str = ""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    tls: bool = False
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    timeout: timedelta = _TIMEOUT
    wait_replicas: int = 0

    @classmethod
    def from_url(cls, url: QueueURL, name: str, lease: LeaseTimes = DEFAULT_LEASE) -> RedisSettings:
        """Take every setting of the connection from `url`; a call must be answered while its `lease` is good.

        Raises:
            InvalidSettingError: the place or a setting is not one that this scheme takes.
        """
        userinfo, _, places = url.parts.netloc.rpartition("@")
        username, _, password = userinfo.partition(":")
        hosts = _hosts(url, places)
        master, db = _path(url)
        return cls(
            url.scheme,
            hosts,
            "{wq:" + name + "}:meta",
            master,
            db,
            unquote(username) or None,
            unquote(password) or None,
            _password_file(url, password),
            url.take("sentinel_username", str, None),
            url.take("sentinel_password", str, None),
            url.scheme == "rediss" or url.take("tls", switch, False),
            url.take("tls_ca", str, None),
            url.take("tls_cert", str, None),
            url.take("tls_key", str, None),
            url.timeout("timeout", _TIMEOUT, lease),
            url.take("wait_replicas", _count, 0),
        )

    @property
    def script_keys(self) -> tuple[int | str, ...]:
        """How many keys a script declares, and which (see prelude.lua)."""
        return 2, self.meta_key, self.meta_key.removesuffix("meta") + "never"

    def connection(self, address: Address, timeout: float) -> dict[str, Any]:
        """What a connection class of redis-py, blocking or not, is made with.

        Raises:
            StoreUnavailableError: the file of the password cannot be read at the moment.
        """
        kwargs: dict[str, Any] = {
            "db": self.db,
            "username": self.username,
            "password": self._password(),
            "protocol": 2,
            "socket_connect_timeout": timeout,
            "client_name": "workqueue",
        }
        if not address.port:
            return {**kwargs, "path": address.host}
        kwargs.update(host=address.host, port=address.port)
        if self.tls:
            kwargs.update(ssl_ca_certs=self.tls_ca, ssl_certfile=self.tls_cert, ssl_keyfile=self.tls_key)
        return kwargs

    def _password(self) -> str | None:
        """The password of a new connection: a file is read each time, so that a rotated password needs no restart."""
        if self.password_file is None:
            return self.password
        try:
            return self.password_file.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise StoreUnavailableError(f"password_file {self.password_file} cannot be read: {error}") from error

    def for_sentinels(self) -> RedisSettings:
        """The same for connections to the sentinels themselves."""
        username, password = self.sentinel_username, self.sentinel_password
        return replace(self, db=0, username=username, password=password, password_file=None)


def _ask(settings: RedisSettings, address: Address, timeout: float, *command: str) -> Any:
    """The answer of one node to one command, over a connection of its own."""
    connection = BlockingConnection(settings.connection(address, timeout), timeout)
    try:
        return connection.ask(*command, timeout=timeout)
    finally:
        connection.close()


class Locator:
    """Finds the node that serves a queue now. Thread-safe."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._known = list(settings.hosts)  # a cluster's nodes may outlive the ones that the URL names
        self._changing = threading.Lock()

    def locate(self, timeout: float) -> Address:
        """The master of this queue, looked for during about `timeout` seconds.

        Raises:
            StoreUnavailableError: none answered, or there is no master at the moment.
            StoreUnusableError: they do not know such a master, or refuse to answer.
        """
        if self._settings.scheme == "redis+sentinel":
            return self._first_answer(self._ask_sentinel, timeout)
        if self._settings.scheme == "redis+cluster":
            return self._first_answer(self._ask_cluster, timeout)
        return self._settings.hosts[0]

    def _first_answer(self, question: Callable[[Address, float], Address | None], timeout: float) -> Address:
        trouble: StoreError | None = None
        known = list(self._known)
        for address in known:
            try:
                found = question(address, timeout / len(known))
            except (*CONNECTION_ERRORS, ResponseError) as error:
                trouble = typed_error(error, str(address), self._mistaken)
            else:
                if found is not None:
                    return found
        raise trouble or self._unknown()

    @property
    def _mistaken(self) -> str:
        """What it means that a node does not know the question."""
        if self._settings.scheme == "redis+sentinel":
            return "is no sentinel, which is what redis+sentinel:// names"
        return "is no cluster; the URL should begin with redis://"

    def _unknown(self) -> StoreError:
        if self._settings.scheme == "redis+sentinel":
            return StoreUnusableError(f"no sentinel knows a master named {self._settings.master!r}")
        return StoreUnavailableError("no node of the cluster serves this queue's slot at the moment")

    def _ask_sentinel(self, sentinel: Address, timeout: float) -> Address | None:
        settings = self._settings.for_sentinels()
        found = _ask(settings, sentinel, timeout, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", settings.master)
        return Address(found[0].decode(), int(found[1])) if found else None

    def _ask_cluster(self, node: Address, timeout: float) -> Address | None:
        slots = _ask(self._settings, node, timeout, "CLUSTER", "SLOTS")
        slot = key_slot(self._settings.meta_key.encode())
        self._learn(node, slots)
        for first, last, master, *_ in slots:
            if first <= slot <= last:
                return _node_address(master, node)
        return None

    def _learn(self, node: Address, slots: list[Any]) -> None:
        nodes = {_node_address(replica, node) for _, _, *replicas in slots for replica in replicas}
        with self._changing:
            self._known = [node, *(nodes - {node}), *(host for host in self._settings.hosts if host not in nodes)]


def _node_address(node: list[Any], asked: Address) -> Address:
    """A node as CLUSTER SLOTS gives it; an empty or unknown host means the one that was asked."""
    host = (node[0] or b"").decode()
    return Address(asked.host if host in ("", "?") else host, node[1])


def _address(text: str, default_port: int) -> Address:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, str(default_port)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidSettingError(f"{shown_url(text)!r} in the queue URL is no host or host:port")
    return Address(host.strip("[]") or "localhost", int(port))


def _hosts(url: QueueURL, places: str) -> tuple[Address, ...]:
    if url.scheme == "redis+unix":
        if places or len(url.parts.path) < 2:
            raise InvalidSettingError("redis+unix:// names a socket: redis+unix:///run/redis/redis.sock?db=0")
        return (Address(unquote(url.parts.path), 0),)
    hosts = tuple(_address(place, _DEFAULT_PORTS[url.scheme]) for place in places.split(","))
    if len(hosts) > 1 and url.scheme in ("redis", "rediss"):
        raise InvalidSettingError(f"{url.scheme}:// takes one host; several go with redis+sentinel or redis+cluster")
    return hosts


def _password_file(url: QueueURL, password: str) -> Path | None:
    """`password_file`, which must be there when the queue is opened, and is read again for each connection."""
    path = url.take("password_file", Path, None)
    if path is not None and password:
        raise InvalidSettingError("the queue URL has a password and a password_file; give one of them")
    if path is not None and not path.is_file():
        raise InvalidSettingError(f"password_file={path} in the queue URL: there is no such file")
    return path


def _path(url: QueueURL) -> tuple[str, int]:
    """Master name and database number from the URL's path."""
    if url.scheme == "redis+unix":
        return "", url.take("db", _count, 0)
    path = url.parts.path.strip("/")
    master = ""
    if url.scheme == "redis+sentinel":
        master, _, path = path.partition("/")
        if not master:
            raise InvalidSettingError(
                "redis+sentinel:// names its master in the path: redis+sentinel://h1,h2/mymaster/0"
            )
    if path and not path.isdigit():
        raise InvalidSettingError(f"the path of {shown_url(url.parts.geturl())!r} is no database number, such as /0")
    if url.scheme == "redis+cluster" and path not in ("", "0"):
        raise InvalidSettingError("a Redis Cluster has only database 0")
    return unquote(master), int(path or 0)


def _count(text: str) -> int:
    if not text.isdigit():
        raise ValueError("it takes a number, 0 or more")
    return int(text)

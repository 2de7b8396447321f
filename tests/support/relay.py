"""What the relay's tests share: targets that can be stopped and come back, relays as processes, and their callers."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.programs import Server, serving

__all__ = ["Got", "Relayed", "Target", "until"]


@dataclass(frozen=True)
class Got:
    """A request that reached a target."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Target:
    """A server on a port of its own, which can go away and come back."""

    answer: Callable[[Got], tuple[int, dict[str, str], bytes]] = lambda got: (200, {}, b"")
    got: list[Got] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def bodies(self) -> list[bytes]:
        return [each.body for each in self.got]

    def start(self) -> None:
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Target:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], target: Target) -> None:
        self.target = target
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        got = Got(self.command, self.path, {name.lower(): value for name, value in self.headers.items()}, body)
        self.server.target.got.append(got)
        status, headers, answer = self.server.target.answer(got)
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@dataclass
class Answered:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Relayed:
    """A relay as a process of its own, on a SQLite file, for targets on loopback."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.port = server.port("requests, probes and metrics on")

    @classmethod
    @contextmanager
    def on(cls, file: Path, *more: str, env: Mapping[str, str] | None = None) -> Iterator[Relayed]:
        """A relay with its requests in `file`; leases of a killed one lapse within two seconds."""
        url = f"sqlite:///{file}?name=relay&lease=2s&renew=500ms"
        args = ("--queue", url, "--allow-target", "127.0.0.1", "--http-port", "0", *more)
        with serving("dispatcher.cli", "relay", *args, env=env) as server:
            yield cls(server)

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answered:
        """Ask the relay itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body or None, {name.replace("_", "-"): v for name, v in headers.items()})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, names, response.read().decode())
        finally:
            connection.close()

    def post(self, target: Target, body: bytes, path: str = "/", **headers: str) -> Answered:
        """Have `body` relayed to `target`."""
        return self.ask("POST", path, body, X_Dispatcher_Original_Host=target.url, **headers)


def until(happened: Callable[[], object]) -> None:
    """Wait for what other processes do; the test's timeout ends it."""
    while not happened():
        time.sleep(0.01)

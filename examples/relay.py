"""A posts to B through a relay while B is down; the relay is killed with kill -9 and started again; B comes back.

    python -m examples.relay

Every request arrives, and each is acknowledged only once it is on disk.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

REQUESTS = 5


class B(BaseHTTPRequestHandler):
    """What A wants to reach. It counts what it got by its Idempotency-Key, since a request may come twice."""

    got: ClassVar[set[str]] = set()
    all_there = threading.Event()

    def do_POST(self) -> None:
        """Take an order."""
        body = self.rfile.read(int(self.headers["content-length"])).decode()
        print(f"B got {body}")
        self.got.add(self.headers["idempotency-key"])
        self.send_response(200)
        self.end_headers()
        if len(self.got) == REQUESTS:
            self.all_there.set()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@contextmanager
def relay(file: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A relay that keeps its requests in `file`; yields its process and its port."""
    command = [sys.executable, "-m", "dispatcher.cli", "relay", "--allow-target", "127.0.0.1", "--http-port", "0"]
    url = f"sqlite:///{file}?name=relay&lease=2s"  # what a killed relay had in hand is taken over after 2 s
    process = subprocess.Popen([*command, "--queue", url], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    listening = next(line for line in process.stderr if "requests, probes and metrics on" in line)
    reading = threading.Thread(target=process.stderr.read)
    reading.start()
    try:
        yield process, int(listening.rpartition(":")[2])
    finally:
        process.terminate()
        reading.join()
        process.communicate()


def post(port: int, target: str, body: str) -> str:
    """Ask the relay to send `body` to `target`; returns what it answered."""
    with closing(HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("POST", "/orders", body, {"X-Dispatcher-Original-Host": target})
        answer = connection.getresponse()
        return f"{answer.status} {answer.headers['location']}"


def main() -> None:
    """Play the story."""
    b = HTTPServer(("127.0.0.1", 0), B, bind_and_activate=False)
    b.server_bind()  # B has an address, and nobody listens there
    target = f"http://127.0.0.1:{b.server_address[1]}"
    with TemporaryDirectory() as folder:
        with relay(Path(folder) / "relay.db") as (process, port):
            for number in range(REQUESTS):
                print(f"A sends order {number}:", post(port, target, f"order {number}"))
            process.kill()
            print("the relay is killed")
        with relay(Path(folder) / "relay.db"):
            print("the relay is back, and so is B")
            b.server_activate()
            threading.Thread(target=b.serve_forever, daemon=True).start()
            B.all_there.wait(60)
    print(f"{len(B.got)} of {REQUESTS} orders arrived")


if __name__ == "__main__":
    main()

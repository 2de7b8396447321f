"""The example with Step Functions against moto's server, which is a process of its own. Run by `make test-aws`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The address of a moto server. Its state machines call its own SQS, so it has to know its port beforehand."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        next(line for line in server.stderr if f"Running on http://127.0.0.1:{port}" in line)
        draining = threading.Thread(target=server.stderr.read)  # it logs every request, and would block on a full pipe
        draining.start()
        _run_state_machines(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
        server.terminate()
        draining.join()


def _run_state_machines(endpoint: str) -> None:
    """Tell moto to execute state machines, rather than only to remember them."""
    config = json.dumps({"stepfunctions": {"execute_state_machine": True}}).encode()
    request = urllib.request.Request(f"{endpoint}/moto-api/config", config, {"content-type": "application/json"})
    urllib.request.urlopen(request).close()


def test_each_execution_ends_with_what_its_handler_returned_or_raised(endpoint: str) -> None:
    command = [sys.executable, "-m", "examples.step_functions", "--endpoint", endpoint]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=100, check=False)

    assert done.returncode == 0, done.stderr
    assert [line.split(maxsplit=2) for line in done.stdout.splitlines()] == [
        ["greet", "SUCCEEDED", '{"text": "hello Ada"}'],
        ["notify", "SUCCEEDED", "{}"],
        ["refused", "FAILED", "InvalidPayloadError"],
        ["unknown", "FAILED", "NoHandlerError"],
    ]

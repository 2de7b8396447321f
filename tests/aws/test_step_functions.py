"""The example with Step Functions against moto's server, which is a process of its own. Run by `make test-aws`."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import python, started

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def endpoint() -> Iterator[str]:
    """The address of a moto server. Its state machines call its own SQS, so it has to know its port beforehand."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with started(command, out=False) as server:
        server.logged(f"Running on http://127.0.0.1:{port}")
        _run_state_machines(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"


def _run_state_machines(endpoint: str) -> None:
    """Tell moto to execute state machines, rather than only to remember them."""
    config = json.dumps({"stepfunctions": {"execute_state_machine": True}}).encode()
    request = urllib.request.Request(f"{endpoint}/moto-api/config", config, {"content-type": "application/json"})
    urllib.request.urlopen(request).close()


def test_each_execution_ends_with_what_its_handler_returned_or_raised(endpoint: str) -> None:
    done = python("-m", "examples.step_functions", "--endpoint", endpoint)

    assert done.code == 0, done.err
    assert [line.split(maxsplit=2) for line in done.out.splitlines()] == [
        ["greet", "SUCCEEDED", '{"text": "hello Ada"}'],
        ["notify", "SUCCEEDED", "{}"],
        ["refused", "FAILED", "InvalidPayloadError"],
        ["unknown", "FAILED", "NoHandlerError"],
    ]

"""For the tests of the GCS emulator: one that runs, and a client that sends what it is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.server import GcsServer


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as running:
        yield running


@pytest.fixture
def client(server: GcsServer) -> Iterator[RawClient]:
    with RawClient(server.url) as raw:
        yield raw

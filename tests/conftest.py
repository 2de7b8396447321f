"""Fixtures that more than one test file uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.backends import BACKENDS, Backend
from workqueue.conformance import Target


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    return found


@pytest.fixture(scope="session")
def target(backend: Backend) -> Iterator[Target]:
    """The backend's target; what it needs, such as a server, runs until the session ends."""
    with backend.opened() as opened:
        yield opened

"""For pytest: fixtures. Opt in with `pytest_plugins = ["workqueue.testing.pytest_plugin"]` in conftest.py."""

from __future__ import annotations

import pytest

from workqueue.backends.url import open_queue
from workqueue.fallbacks import FullQueue
from workqueue.testing.clock import FakeClock

__all__ = ["clock", "queue"]


@pytest.fixture
def clock() -> FakeClock:
    """A clock that stands still until the test moves it."""
    return FakeClock()


@pytest.fixture
def queue(clock: FakeClock) -> FullQueue:
    """A queue in memory on `clock`. The test enters it, `async with queue:`, on the event loop that it runs on."""
    return open_queue("memory://", clock=clock)

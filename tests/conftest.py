"""Fixtures that more than one test file uses."""

from __future__ import annotations

import gc
import inspect
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.backends import BACKENDS, Backend
from tests.support.dispatching import bounded
from tests.support.tls import Authority, Pair
from workqueue.conformance import Target


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among ten thousand tests: neither while they are found nor, ever again, while they run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> Backend:
    found: Backend = request.param
    return found


@pytest.fixture(scope="session")
def target(backend: Backend) -> Iterator[Target]:
    """The backend's target; what it needs, such as a server, runs until the session ends."""
    with backend.opened() as opened:
        yield opened


@pytest.fixture(scope="session", autouse=True)
def heedful() -> None:
    """Let every signal do what it does in a terminal; `nohup` and a shell's `&` have some ignored, here and below."""
    for number, handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def pair(authority: Authority) -> Pair:
    """A certificate of the authority for loopback, and its key."""
    return authority.issue("127.0.0.1")


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run an `async def test_…`: the one runner of async tests, a loop of its own for each."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = inspect.signature(pyfuncitem.obj).parameters
    bounded(pyfuncitem.obj)(**{name: pyfuncitem.funcargs[name] for name in arguments})
    return True

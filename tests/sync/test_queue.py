"""A queue for synchronous code: the asynchronous one, from any thread, in any process."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from tests.fakes.redis_server import shared_server
from tests.support.processes import python
from tests.support.redis import fresh_name
from workqueue import (
    InvalidKeyError,
    KeyNotFoundError,
    KeyStatus,
    Options,
    StoreUnavailableError,
    WorkQueueError,
)
from workqueue import open_queue as open_async
from workqueue.errors import MissingExtraError, QueueClosedError, StoreUnusableError, UnsupportedError
from workqueue.optional import LeaseRequest
from workqueue.sync import Queue, open_queue


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/wq.db"}
    return urls.get(request.param) or shared_server().url(fresh_name())


def in_child(step: Callable[[], object]) -> str:
    """What `step` returned or raised in a child of this process, made by fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = f"returned {step()}"
        except WorkQueueError as error:
            said = type(error).__name__
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def test_a_key_is_queued_looked_up_and_counted(url: str) -> None:
    with open_queue(url) as queue:
        queue.queue("a", Options(priority=3))
        queue.queue_many((key, Options()) for key in "abc")

        assert (queue.get("a").status, queue.get("a").priority) == (KeyStatus.QUEUED, 3)
        assert queue.counts().queued == 3
        with pytest.raises(KeyNotFoundError):
            queue.get("elsewhere")
        with pytest.raises(InvalidKeyError):
            queue.queue("")


def test_an_operators_script_redrives_and_drops(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/wq.db"

    async def give_up() -> None:
        async with open_async(url) as queue:
            for owned in (await queue.lease(LeaseRequest(300, 300))).started:
                await owned.dead_letter("broken")

    with open_queue(url) as queue:
        queue.queue_many((f"k{number}", Options()) for number in range(250))
    asyncio.run(give_up())
    with open_queue(url) as queue:
        assert all(letter.error == "broken" and letter.requeue() for letter in queue.enumerate().dead_letters)
        found = queue.find("k7").queued
        assert found is not None
        assert found.drop()
        assert not found.drop()
        assert queue.counts().queued == 249


def test_32_threads_share_one_background_thread(url: str) -> None:
    with open_queue(url) as queue, open_queue("memory://") as other, ThreadPoolExecutor(32) as threads:
        list(threads.map(queue.queue, (f"k{number}" for number in range(320))))
        other.queue("a")

        assert queue.counts().queued == 320
        assert [thread.name for thread in threading.enumerate()].count("workqueue.sync") == 1


def test_a_forked_child_opens_a_shared_queue_anew() -> None:
    with open_queue(shared_server().url(fresh_name())) as queue:
        queue.queue("parent")

        assert in_child(lambda: queue.queue("child")) == "returned None"
        assert queue.counts().queued == 2


def test_a_forked_child_is_refused_what_it_cannot_share(tmp_path: Path) -> None:
    with open_queue(f"sqlite:///{tmp_path}/wq.db") as file, open_queue("memory://") as memory:
        file.queue("a")

        assert in_child(lambda: file.queue("b")) == StoreUnusableError.__name__
        assert in_child(lambda: memory.queue("b")) == QueueClosedError.__name__
        assert file.counts().queued == 1


class Silent:
    """A queue that never answers."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    async def __aenter__(self) -> Silent:
        return self

    async def __aexit__(self, *exc_info: object) -> None: ...

    async def queue(self, key: str, options: Options = Options()) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


def test_a_call_without_an_answer_ends_in_its_time_and_is_cancelled() -> None:
    silent = Silent()
    with Queue(lambda: silent, "silent://", timedelta(hours=1)) as queue:  # type: ignore[arg-type, return-value]
        with pytest.raises(StoreUnavailableError, match=r"no answer within 0\.01 s"):
            queue.queue("a", timeout=timedelta(milliseconds=10))

        assert silent.cancelled.wait(60)


def test_a_closed_queue_and_one_that_was_never_open_refuse_calls() -> None:
    queue = open_queue("memory://")
    with pytest.raises(QueueClosedError):
        queue.queue("a")
    with queue:
        queue.queue("a")
    with pytest.raises(QueueClosedError):
        queue.queue("a")


async def test_a_thread_that_runs_an_event_loop_is_refused() -> None:
    queue = open_queue("memory://")

    with pytest.raises(UnsupportedError, match="async with"):
        queue.__enter__()


def test_gevent_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkey = ModuleType("gevent.monkey")
    monkey.is_module_patched = lambda name: name == "threading"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gevent.monkey", monkey)

    with pytest.raises(UnsupportedError, match="gevent"):
        open_queue("memory://")


def test_a_program_that_never_closes_its_queue_ends_and_keeps_its_keys(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/wq.db"
    program = f"from workqueue.sync import open_queue; open_queue({url!r}).__enter__().queue('a')"

    ended = python("-c", program)

    assert (ended.code, ended.err) == (0, "")
    assert not Path(f"{tmp_path}/wq.db-wal").exists()  # it was closed, not left
    with open_queue(url) as queue:
        assert queue.counts().queued == 1


def test_a_missing_extra_is_found_when_the_queue_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("workqueue.backends.redis")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "hiredis", None)

    with pytest.raises(MissingExtraError, match="redis"):
        open_queue("redis://h/0")

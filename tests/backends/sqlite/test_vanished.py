"""A queue file that is pulled from under its queue, or shared across a fork: no key is acknowledged and lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.support.sqlite import eligible, lease, python, sqlite_queue
from workqueue import StoreUnavailableError
from workqueue.backends.sqlite.store import Ask
from workqueue.errors import StoreUnusableError

FORKED = """
import asyncio, os, sys
from workqueue.backends import open_queue
from workqueue.errors import StoreUnusableError

url = "sqlite:///" + sys.argv[1]

async def enqueue(key):
    async with open_queue(url) as queue:
        await queue.queue(key)

def forked():
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        asyncio.run(enqueue("child"))
    except StoreUnusableError as error:
        print(error, flush=True)
        os._exit(3)
    os._exit(0)

async def while_open():
    async with open_queue(url) as queue:
        await queue.counts()
        return forked()

print(asyncio.run(while_open()), forked())
"""


@pytest.mark.parametrize("side", ["-wal", "-shm"])
async def test_a_log_or_shared_memory_that_was_deleted_takes_no_more_keys_and_loses_none(
    tmp_path: Path, side: str
) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("stored")
        (tmp_path / f"q.db{side}").unlink()

        with pytest.raises(StoreUnusableError, match=f"q.db{side} was moved, deleted or replaced"):
            await queue.queue("refused")

    async with sqlite_queue(tmp_path / "q.db") as queue:
        assert await eligible(queue) == ["stored"]


async def test_a_log_that_vanishes_during_a_commit_acknowledges_nothing(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        vanish = Ask(lambda store: (tmp_path / "q.db-wal").unlink())
        calls = [
            queue._writer.submit(vanish),
            asyncio.ensure_future(queue.queue("a")),
            asyncio.ensure_future(lease(queue)),
        ]

        answers = await asyncio.gather(*calls, return_exceptions=True)

        assert {type(answer) for answer in answers} == {StoreUnusableError}


async def test_a_log_behind_a_link_is_watched_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "q.db").symlink_to(tmp_path / "real" / "wq.db")
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("stored")
        (tmp_path / "real" / "wq.db-wal").unlink()

        with pytest.raises(StoreUnusableError):
            await queue.queue("refused")


def not_a_directory(folder: Path) -> None:
    folder.rename(f"{folder}.away")
    folder.touch()


def a_loop_of_links(folder: Path) -> None:
    folder.rename(f"{folder}.away")
    folder.symlink_to(folder)


@pytest.mark.parametrize("trouble", [not_a_directory, a_loop_of_links])
async def test_a_file_that_cannot_be_looked_at_for_a_while_ends_no_dispatcher(
    tmp_path: Path, trouble: Callable[[Path], None]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    called = asyncio.Event()

    async def reconcile(key: str, attempt: Attempt) -> None:
        called.set()

    settings = DispatcherSettings(poll_period=timedelta(milliseconds=10))
    async with sqlite_queue(folder / "q.db") as queue, Dispatcher(queue, reconcile, settings):
        trouble(folder)
        with pytest.raises(StoreUnavailableError, match="cannot be looked at"):
            await queue.queue("a")

        folder.unlink()
        os.rename(f"{folder}.away", folder)
        await queue.queue("a")
        await called.wait()


def test_a_process_forked_while_the_file_was_open_is_refused_and_one_forked_later_is_not(tmp_path: Path) -> None:
    ended = python(FORKED, tmp_path / "q.db")

    refusal, codes = ended.stdout.splitlines()
    assert "spawn" in refusal
    assert str(tmp_path / "q.db") in refusal
    assert codes == "3 0", ended.stderr

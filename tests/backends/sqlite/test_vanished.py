"""A queue file that is pulled from under its queue, or shared across a fork: no key is acknowledged and lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.support.sqlite import eligible, lease, python, shell, sqlite_queue
from workqueue import Options, StoreUnavailableError
from workqueue.backends.sqlite.backend import SqliteQueue
from workqueue.backends.sqlite.store import Ask
from workqueue.backends.sqlite.wal import Log
from workqueue.errors import QueueClosedError, StoreUnusableError

FORKED = """
import asyncio, os, sys
from workqueue.backends import open_queue
from workqueue.errors import QueueClosedError, StoreUnusableError

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


def moved(file: Path) -> Callable[[], object]:
    file.rename(f"{file}.away")
    return lambda: os.replace(f"{file}.away", file)


def replaced(file: Path) -> Callable[[], object]:
    put_back = moved(file)
    file.write_bytes(b"another file")
    return put_back


def in_a_moved_folder(file: Path) -> Callable[[], object]:
    file.parent.rename(f"{file.parent}.away")
    return lambda: os.rename(f"{file.parent}.away", file.parent)


def emptied(file: Path) -> Callable[[], object]:
    content = file.read_bytes()
    os.truncate(file, 0)
    return lambda: file.write_bytes(content)


USES: list[Callable[[SqliteQueue], Awaitable[object]]] = [
    lambda queue: queue.queue("refused"),
    lambda queue: lease(queue),
    lambda queue: queue.counts(),
    lambda queue: queue.get("first"),
    lambda queue: eligible(queue),
    lambda queue: queue.wait(timedelta(hours=1), 0),
]


@pytest.mark.parametrize("pull", [moved, replaced, in_a_moved_folder, emptied])
@pytest.mark.parametrize("use", USES, ids=["enqueue", "lease", "count", "get", "list", "wait"])
async def test_a_file_that_is_pulled_away_fails_every_call_and_has_all_its_keys_once_it_is_put_back(
    tmp_path: Path, pull: Callable[[Path], Callable[[], object]], use: Callable[[SqliteQueue], Awaitable[object]]
) -> None:
    file = tmp_path / "data" / "q.db"
    file.parent.mkdir()
    async with sqlite_queue(file) as queue:
        await queue.queue("first")
        put_back = pull(file)

        with pytest.raises(StoreUnusableError, match=r"moved, deleted or replaced|emptied"):
            await use(queue)

        put_back()
        await queue.queue("second")
    async with sqlite_queue(file) as queue:
        assert await eligible(queue) == ["first", "second"]


async def test_a_file_that_was_moved_without_its_log_is_opened_by_nobody_and_loses_no_key(tmp_path: Path) -> None:
    file = tmp_path / "q.db"
    async with sqlite_queue(file) as queue:
        await queue.queue("a")
        (owned,) = (await lease(queue)).started
        put_back = moved(file)
        with pytest.raises(StoreUnusableError, match="put the file back"):
            await owned.complete()
    for settings in ({}, {"read_only": "true"}):
        with pytest.raises(StoreUnusableError, match=r"is missing, but .* its log, .*q.db-wal"):
            await sqlite_queue(file, **settings).__aenter__()
    assert not file.exists()

    put_back()

    async with sqlite_queue(file) as queue:
        assert [observed.key for observed in (await queue.enumerate()).in_progress] == ["a"]


async def test_who_sleeps_hears_that_the_file_was_moved(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        sleeping = asyncio.ensure_future(queue.wait(timedelta(hours=1), 1))
        await queue.counts()  # asked after what `wait` asks, on one thread
        moved(tmp_path / "q.db")

        with pytest.raises(StoreUnusableError, match="moved"):
            await asyncio.wait_for(sleeping, 10)


async def test_who_only_looks_at_a_file_that_was_replaced_opens_it_again(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue, sqlite_queue(tmp_path / "q.db", read_only="true") as looking:
        await queue.queue("a")
        replaced(tmp_path / "q.db")

        with pytest.raises(StoreUnusableError, match="open the queue again"):
            await looking.counts()


def to_nothing(log: Path) -> None:
    os.truncate(log, 0)


def to_half(log: Path) -> None:
    os.truncate(log, log.stat().st_size // 2)


def with_zeros(log: Path) -> None:
    with log.open("r+b") as file:
        file.write(bytes(4096))


@pytest.mark.parametrize("cut", [to_nothing, to_half, with_zeros])
async def test_a_log_that_was_cut_off_takes_no_more_keys_and_damages_none_that_are_in_the_file(
    tmp_path: Path, cut: Callable[[Path], None]
) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(f"key-{number:04}", Options()) for number in range(900)])
    async with sqlite_queue(tmp_path / "q.db") as queue:
        for number in range(20):
            await queue.queue(f"later-{number}")
        cut(tmp_path / "q.db-wal")

        for _ in range(2):
            with pytest.raises(StoreUnusableError, match="cut off"):
                await queue.queue("refused")

    async with sqlite_queue(tmp_path / "q.db") as queue:
        keys = await eligible(queue)
        assert keys[:900] == [f"key-{number:04}" for number in range(900)]
        assert "refused" not in keys


async def test_a_log_that_is_cut_off_beside_another_process_is_noticed_by_both(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue, sqlite_queue(tmp_path / "q.db") as other:
        for each in [queue, other] * 5:
            await each.queue("a")
        to_nothing(tmp_path / "q.db-wal")

        for each in (queue, other):
            with pytest.raises(StoreUnusableError, match=r"cut off|no SQLite database"):
                await each.queue("b")


async def test_a_log_that_another_program_writes_back_and_cuts_is_no_reason_to_refuse_anything(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue, sqlite_queue(tmp_path / "q.db") as other:
        with shell(tmp_path / "q.db") as hand:
            for number in range(20):
                await queue.queue(f"a-{number}")
                hand.execute(f"PRAGMA journal_size_limit = {number % 3 * 5000}")
                hand.execute(f"PRAGMA wal_checkpoint({('TRUNCATE', 'RESTART')[number % 2]})")
                hand.execute("UPDATE queues SET paused = paused")
                await other.queue(f"b-{number}")

        assert len(await eligible(queue)) == 40


async def test_a_writer_that_fails_answers_who_waits_and_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(log: Log, **how: object) -> None:
        raise ZeroDivisionError

    async with sqlite_queue(tmp_path / "q.db") as queue:
        monkeypatch.setattr(Log, "shortage", fail)
        monkeypatch.setattr(Log, "close", fail)

        with pytest.raises(ZeroDivisionError):
            await queue.queue("a")
        with pytest.raises(QueueClosedError):
            await queue.queue("b")


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

    refusal, codes = ended.out.splitlines()
    assert "spawn" in refusal
    assert str(tmp_path / "q.db") in refusal
    assert codes == "3 0", ended.err

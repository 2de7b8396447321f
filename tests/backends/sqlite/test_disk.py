"""What waits for the disk and what does not, and a disk that refuses what it was given."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.sqlite import eligible, lease, locked, shell, sqlite_queue
from workqueue import Options, StoreUnavailableError
from workqueue.backends.sqlite import wal
from workqueue.backends.sqlite.store import Ask, Enqueue, Store
from workqueue.optional import LeaseRequest


class Disk:
    """Stands between the queue and the disk: counts what is synced, lets it wait, or refuses it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = 0
        self.refuses = False
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_asked = threading.Event()
        self._works = wal._sync
        monkeypatch.setattr(wal, "_sync", self._sync)

    def _sync(self, descriptor: int) -> None:
        self.is_asked.set()
        assert self.goes_on.wait(10)
        if self.refuses:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._works(descriptor)
        self.syncs += 1


@pytest.mark.parametrize(("synchronous", "expected"), [("full", [1, 1, 2]), ("normal", [0, 0, 0])])
async def test_enqueues_and_settles_wait_for_the_disk_and_starts_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synchronous: str, expected: list[int]
) -> None:
    disk = Disk(monkeypatch)
    async with sqlite_queue(tmp_path / "q.db", synchronous=synchronous) as queue:
        syncs = []

        await queue.queue("a")
        syncs.append(disk.syncs)
        (owned,) = (await lease(queue)).started
        syncs.append(disk.syncs)
        await owned.complete()
        syncs.append(disk.syncs)

    assert syncs == expected


async def test_an_enqueue_is_answered_only_when_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    async with sqlite_queue(tmp_path / "q.db") as queue:
        disk.goes_on.clear()
        waiting = asyncio.ensure_future(queue.queue("a"))
        await asyncio.to_thread(disk.is_asked.wait, 10)

        assert await eligible(queue) == ["a"]
        assert not waiting.done()
        disk.goes_on.set()
        await waiting


async def test_a_start_is_answered_while_the_disk_is_at_work_for_the_settle_that_made_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([("a", Options()), ("b", Options())])
        (owned,) = (await lease(queue, limit=1)).started
        disk.goes_on.clear()
        with locked(tmp_path / "q.db"):
            settling = asyncio.ensure_future(owned.complete())
            await asyncio.sleep(0)
            starting = asyncio.ensure_future(queue.lease(LeaseRequest(1, 1)))
            await asyncio.sleep(0)

        assert [owned.key for owned in (await starting).started] == ["b"]
        assert not settling.done()
        disk.goes_on.set()
        assert await settling


async def test_what_waits_when_a_transaction_is_committed_shares_its_wait_for_the_disk_and_is_answered_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    heard: list[str] = []
    begun, goes_on = threading.Event(), threading.Event()

    def slow(store: Store) -> None:
        begun.set()
        assert goes_on.wait(10)

    async with sqlite_queue(tmp_path / "q.db") as queue:
        first = queue._writer.submit(Ask(slow))
        await asyncio.to_thread(begun.wait, 10)
        late = queue._writer.submit(Enqueue((("a", Options()),), 1))
        late.add_done_callback(lambda _: heard.append("late"))
        first.add_done_callback(lambda _: heard.append("first"))
        goes_on.set()
        await asyncio.gather(first, late)

        assert disk.syncs == 1
        assert heard == ["late", "first"]
        assert await eligible(queue) == ["a"]


async def test_after_a_sync_that_failed_nothing_is_stored_until_the_log_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    path = tmp_path / "q.db"
    async with sqlite_queue(path) as queue:
        disk.refuses = True
        with pytest.raises(StoreUnavailableError, match="the disk cannot be written"):
            await queue.queue("a")
        disk.refuses = False
        await queue.queue("b")
        with shell(path) as reader:  # needs the log as it is
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM queued").fetchone()
            disk.refuses = True
            with pytest.raises(StoreUnavailableError):
                await queue.queue("c")
            disk.refuses = False
            with pytest.raises(StoreUnavailableError, match="the disk cannot be written"):
                await queue.queue("d")
            reader.execute("ROLLBACK")
        await queue.queue("e")

        shutil.copy(path, tmp_path / "copy.db")  # without its log
        with shell(tmp_path / "copy.db") as copy:
            assert [key for (key,) in copy.execute("SELECT key FROM queued ORDER BY id")] == ["a", "b", "c"]
        assert await eligible(queue) == ["a", "b", "c", "e"]


async def test_what_is_committed_is_answered_although_the_next_call_waits_for_the_lock(tmp_path: Path) -> None:
    begun, goes_on = threading.Event(), threading.Event()
    async with sqlite_queue(tmp_path / "q.db") as queue:
        with closing(sqlite3.connect(tmp_path / "q.db", isolation_level=None, check_same_thread=False)) as other:
            connection = queue._opened.connection

            def locks(statement: str) -> None:
                if statement.startswith("BEGIN"):
                    connection.set_trace_callback(None)
                    other.execute("BEGIN IMMEDIATE")

            def slow(store: Store) -> None:
                begun.set()
                assert goes_on.wait(10)
                connection.set_trace_callback(locks)

            first = queue._writer.submit(Ask(slow))
            await asyncio.to_thread(begun.wait, 10)
            late = asyncio.ensure_future(queue.queue("a"))
            await asyncio.sleep(0)
            goes_on.set()

            await first
            assert other.in_transaction
            assert not late.done()
            other.execute("ROLLBACK")
            await late

"""How a SQLite queue lies on the disk: the size of its pages and of its log, and where its rows are."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.support.sqlite import eligible, lease, shell, sqlite_queue
from workqueue import Options
from workqueue.backends.sqlite.schema import PAGE_BYTES

KIB = 1024
DOCUMENTED = (Path(__file__).parents[3] / "docs" / "backends.md").read_text()
SMALLER = f"PRAGMA journal_mode = DELETE; PRAGMA page_size = {PAGE_BYTES}; VACUUM"
LARGE = Options(payload=b"x" * 100 * KIB)


def made_by_hand(path: Path, page_bytes: int) -> None:
    """An empty file, but for the size of its pages."""
    with shell(path) as other:
        other.execute(f"PRAGMA page_size = {page_bytes}")
        other.execute("VACUUM")


def page_bytes_of(path: Path) -> int:
    with shell(path) as other:
        return int(other.execute("PRAGMA page_size").fetchone()[0])


def log_bytes_of(path: Path) -> int:
    return os.path.getsize(f"{path}-wal")


async def test_a_new_file_has_small_pages(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")

    assert page_bytes_of(tmp_path / "q.db") == PAGE_BYTES


@pytest.mark.parametrize("page_bytes", [512, 4096, 65536])
async def test_the_log_has_room_for_as_much_whatever_the_size_of_a_page(tmp_path: Path, page_bytes: int) -> None:
    path, largest = tmp_path / "q.db", 0
    made_by_hand(path, page_bytes)
    async with sqlite_queue(path, synchronous="normal") as queue:
        for number in range(80):
            await queue.queue(f"key-{number}", LARGE)
            assert [await owned.complete() for owned in (await lease(queue)).started] == [True]
            largest = max(largest, log_bytes_of(path))

    assert page_bytes_of(path) == page_bytes
    assert 4000 * KIB <= largest <= 5500 * KIB


async def test_keys_enqueued_together_lie_in_the_order_in_which_they_start(tmp_path: Path) -> None:
    keys = [f"key-{number:04}" for number in range(1200)]  # of several transactions
    shuffled = random.sample(keys, len(keys))
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(key, Options()) for key in shuffled])

        assert (await eligible(queue))[:1000] == keys[:1000]
    with shell(tmp_path / "q.db") as file:
        assert [key for (key,) in file.execute("SELECT key FROM queued ORDER BY id")] == keys


async def test_the_pages_of_an_older_file_are_made_small_as_the_documentation_says(tmp_path: Path) -> None:
    path = tmp_path / "q.db"
    made_by_hand(path, 4096)
    async with sqlite_queue(path) as queue:
        await queue.queue("a")

    with shell(path) as file:
        for statement in SMALLER.split(";"):
            file.execute(statement)

    assert page_bytes_of(path) == PAGE_BYTES
    async with sqlite_queue(path) as queue:
        assert await eligible(queue) == ["a"]
    assert SMALLER in DOCUMENTED

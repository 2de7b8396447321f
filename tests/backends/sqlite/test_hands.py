"""A SQLite queue whose tables a hand changed: rows of `queues` or whole tables are gone, counts are garbage."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.support.sqlite import eligible, lease, shell, sqlite_queue
from workqueue import Configuration
from workqueue.backends.sqlite.backend import SqliteQueue
from workqueue.errors import StoreUnusableError
from workqueue.optional import LeaseRequest

USES: list[Callable[[SqliteQueue], Awaitable[object]]] = [
    lambda queue: queue.counts(),
    lambda queue: queue.configuration(),
    lambda queue: queue.configure(Configuration()),
    lambda queue: queue.lease(LeaseRequest(0, 1)),
]


@pytest.mark.parametrize("use", USES, ids=["count", "settings", "configure", "lease"])
async def test_the_row_of_a_queue_that_a_hand_deleted_is_put_back_with_its_counts(
    tmp_path: Path, use: Callable[[SqliteQueue], Awaitable[object]]
) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue, sqlite_queue(tmp_path / "q.db", name="other") as other:
        await queue.queue("a")
        with shell(tmp_path / "q.db") as hand:
            hand.execute("DELETE FROM queues WHERE name = 'default'")
        await queue.queue("b")

        await use(queue)

        assert (await queue.counts()).queued == 2
        assert (await other.counts()).queued == 0
    async with sqlite_queue(tmp_path / "q.db") as queue:
        assert await eligible(queue) == ["a", "b"]


@pytest.mark.parametrize(("name", "advice", "left"), [("default", 0, ["default"]), ("new", 1, [])])
async def test_keys_of_a_queue_whose_row_a_hand_deleted_are_given_to_no_queue_unless_the_advice_is_followed(
    tmp_path: Path, name: str, advice: int, left: list[str]
) -> None:
    for each in ("other", "default"):
        async with sqlite_queue(tmp_path / "q.db", name=each) as queue:
            await queue.queue(each)
    with shell(tmp_path / "q.db") as hand:
        hand.execute("DELETE FROM queues WHERE name = 'default'")

        with pytest.raises(StoreUnusableError, match="its row was deleted") as refused:
            await sqlite_queue(tmp_path / "q.db", name=name).__aenter__()
        hand.executescript(re.findall('"(.*?)"', str(refused.value))[advice])

    async with sqlite_queue(tmp_path / "q.db", name=name) as queue:
        assert await eligible(queue) == left
        assert (await queue.counts()).queued == len(left)


async def test_a_queue_whose_row_was_given_another_id_says_so(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        with shell(tmp_path / "q.db") as hand:
            hand.execute("UPDATE queues SET id = 9")

        with pytest.raises(StoreUnusableError, match="another id than 1"):
            await lease(queue)


async def test_who_only_looks_at_a_queue_whose_row_a_hand_deleted_is_refused(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db"), sqlite_queue(tmp_path / "q.db", read_only="true") as looking:
        with shell(tmp_path / "q.db") as hand:
            hand.execute("DELETE FROM queues")

        with pytest.raises(StoreUnusableError, match="was deleted by hand"):
            await looking.counts()


@pytest.mark.parametrize("value", ["'abc'", "x'ff'", "1e300", "-5"])
async def test_counts_of_garbage_are_numbers_all_the_same(tmp_path: Path, value: str) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        with shell(tmp_path / "q.db") as hand:
            hand.execute(
                f"UPDATE queues SET ready = {value}, delayed = {value}, twins = {value}, dead_letters = {value}"
            )

        counts = await queue.counts()

    assert (counts.queued, counts.not_before, counts.twins, counts.dead_lettered) == (0, 0, 0, 0)


@pytest.mark.parametrize("table", ["queues", "queued", "in_progress", "dead"])
async def test_a_table_that_is_gone_is_refused_with_what_to_do(tmp_path: Path, table: str) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        with shell(tmp_path / "q.db") as hand:
            hand.execute(f"DROP TABLE {table}")

        async def used(use: Callable[[], Awaitable[object]]) -> None:
            await use()
            await queue.queue("b")
            await queue.get("a")

        for use in (lambda: lease(queue), queue.counts, lambda: queue.find("a")):
            with pytest.raises(StoreUnusableError, match="restore a backup"):
                await used(use)


@pytest.mark.parametrize(
    "slip", ["DELETE FROM log_mark", "DROP TABLE log_mark", "UPDATE log_mark SET boot = 'x', file_mtime_ns = 'y'"]
)
async def test_a_mark_that_a_hand_spoiled_is_made_anew(tmp_path: Path, slip: str) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
    with shell(tmp_path / "q.db") as hand:
        hand.execute(slip)

    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("b")
        with shell(tmp_path / "q.db") as hand:
            assert hand.execute("SELECT typeof(file_mtime_ns) FROM log_mark").fetchall() == [("integer",)]

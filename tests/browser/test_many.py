"""A million keys in a real Chromium: the pages of such a queue come about as fast as those of a small one."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from statistics import median

import pytest

from tests.browser.chromium import At, at_console
from workqueue import Options, open_queue

MANY = 1_000_000
CALL = 100_000


async def fill(url: str, many: int) -> None:
    """Keys from `key-0000000` on."""
    async with open_queue(url) as queue:
        for start in range(0, many, CALL):
            end = min(start + CALL, many)
            await queue.queue_many([(f"key-{number:07}", Options()) for number in range(start, end)])


async def multiply(url: str, many: int) -> None:
    """The same in a file, at a tenth of the CPU: a key is copied, and then comes what keeps indexes and counts."""
    await fill(url, 1)
    path = Path(url.removeprefix("sqlite://").partition("?")[0])
    with closing(sqlite3.connect(path)) as connection, connection:
        kept = connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE tbl_name = 'queued' AND type IN ('index', 'trigger')"
        ).fetchall()
        for kind, name, _ in kept:
            connection.execute(f"DROP {kind} {name}")
        columns = "place, priority, attempts, queued_us, first_queued_us"
        connection.execute(
            f"INSERT INTO queued (queue, key, {columns}) "
            "WITH RECURSIVE numbers(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers LIMIT ?) "
            f"SELECT queue, printf('key-%07d', number), {columns} FROM numbers, queued WHERE key = 'key-0000000'",
            (many - 1,),
        )
        connection.execute("UPDATE queues SET ready = ready + ?", (many - 1,))
        for _, _, statement in kept:
            connection.execute(statement)


async def seconds(at: At, path: str) -> float:
    """How long a page takes, of five the one in the middle."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        await at.page.goto(at.base + path)
        took.append(time.perf_counter() - began)
    return median(took)


@pytest.mark.timeout(400)  # what fills them takes most of it where others work too
async def test_pages_of_a_million_keys_come_about_as_fast_as_those_of_a_hundredth(url: str, tmp_path: Path) -> None:
    few = url.replace("wq.db", "few.db") + "-few"
    await fill(few, MANY // 100)
    await (multiply if url.startswith("sqlite") else fill)(url, MANY)
    async with at_console(url, "--queue", few) as at:
        for rest in ("/keys/queued", "", "/keys/queued?prefix=nothing", "/key?key=key-0009999"):
            assert await seconds(at, at.path + rest) < 10 * await seconds(at, f"{at.path}-few{rest}"), rest
        await at.go("/keys/queued?prefix=nothing")
        await at.reads("0 match among the 10,000 keys looked at")
        await at.go("/keys/queued")
        await at.page.get_by_role("heading", name="1,000,000").wait_for()
        await at.page.get_by_role("link", name="Next page").click()
        await at.page.get_by_role("link", name="key-0000100", exact=True).wait_for()
    assert at.complaints == []

"""A SQLite queue on a volume that is hardly larger than it: it works for ever, and what was stored can be settled."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.sqlite import on_a_small_volume

LEAST_MIB = 16  # docs/backends.md says so
MIB = 1024 * 1024

# What the scripts share: whole lives of keys, five at a time.
LIVES = """
import asyncio, os, sqlite3, sys
from contextlib import closing
from workqueue import Options, StoreUnavailableError
from workqueue.backends import open_queue
from workqueue.optional import LeaseRequest

async def complete(queue):
    started = (await queue.lease(LeaseRequest(5, 5))).started
    assert all(await asyncio.gather(*[owned.complete() for owned in started]))
    return len(started)

async def complete_all(queue):
    completed = 0
    while done := await complete(queue):
        completed += done
    return completed

async def live(queue, rounds):
    largest = 0
    for number in range(rounds):
        await queue.queue_many([(f"key-{(5 * number + each) % 50}", Options()) for each in range(5)])
        await complete(queue)
        largest = max(largest, os.path.getsize(sys.argv[1] + "-wal"))
    return largest

async def until_refused(queue, step):
    stored = 0
    try:
        while True:
            await step(stored)
            stored += 1
    except StoreUnavailableError as error:
        return stored, str(error)

async def main():
    async with open_queue("sqlite:///" + sys.argv[1]) as queue:
        print(*await script(queue), sep="\\n")
"""
RUN = "\nasyncio.run(main())\n"

FIFTY_KEYS = """
async def script(queue):
    return [await live(queue, 1000)]
"""

FILLED = """
async def script(queue):
    stored, refusal = await until_refused(queue, lambda n: queue.queue(f"key-{n}", Options(payload=b"x" * 20_000)))
    completed = await complete_all(queue)
    for number in range(stored // 2):
        await queue.queue(f"again-{number}", Options(payload=b"x" * 20_000))
    return [stored, completed, await complete_all(queue), refusal]
"""

HELD_BY_A_READER = """
async def script(queue):
    await queue.queue("a")
    with closing(sqlite3.connect(sys.argv[1], isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM queued").fetchone()
        (owned,) = (await queue.lease(LeaseRequest(5, 5))).started
        async def fail(attempt):
            nonlocal owned
            await owned.release()
            (owned,) = (await queue.lease(LeaseRequest(5, 5))).started
        released, refusal = await until_refused(queue, fail)
    await complete_all(queue)
    await queue.queue("b")
    return [await live(queue, 20), released, refusal]
"""


def outcome(mib: int, folder: Path, script: str) -> list[str]:
    ended = on_a_small_volume(mib, folder, LIVES + script + RUN)
    assert ended.code == 0, ended.err
    return ended.out.splitlines()


@pytest.mark.parametrize("mib", [LEAST_MIB, 32])
def test_a_few_keys_that_run_all_the_time_never_fill_a_small_volume(tmp_path: Path, mib: int) -> None:
    (largest_log,) = outcome(mib, tmp_path, FIFTY_KEYS)

    assert int(largest_log) < 8 * MIB


def test_what_filled_a_small_volume_can_be_completed_and_the_space_used_again(tmp_path: Path) -> None:
    stored, completed, again, refusal = outcome(LEAST_MIB, tmp_path, FILLED)

    assert int(stored) > 100
    assert completed == stored
    assert int(again) == int(stored) // 2
    assert "kept for settling" in refusal


def test_a_volume_that_a_long_reader_let_the_log_fill_is_free_again_once_it_has_read(tmp_path: Path) -> None:
    _, released, refusal = outcome(LEAST_MIB, tmp_path, HELD_BY_A_READER)

    assert int(released) > 100
    assert "disk" in refusal

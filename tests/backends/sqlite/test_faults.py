"""A SQLite queue in trouble: locked for long, on a full disk, deleted, damaged, under a clock that jumps."""

from __future__ import annotations

import asyncio
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.sqlite import eligible, lease, locked, python, shell, sqlite_queue
from workqueue import Configuration, KeyStatus, Options, StoreUnavailableError
from workqueue.backends.sqlite.backend import SqliteQueue
from workqueue.errors import StoreUnusableError
from workqueue.interface import OwnedInProgressKey
from workqueue.optional import LeaseRequest
from workqueue.testing import FakeClock

FULL_DISK = """
import asyncio, os, resource, sys
from workqueue import Options, StoreUnavailableError
from workqueue.backends import open_queue

async def main(path):
    async with open_queue(f"sqlite:///{path}") as queue:
        await queue.queue("first")
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(path + "-wal") + 200_000, resource.RLIM_INFINITY))
        stored, refused = 0, 0
        while refused < 3:
            try:
                await queue.queue(f"key-{stored}", Options(payload=b"x" * 10_000))
                stored += 1
            except StoreUnavailableError:
                refused += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        await queue.queue("last")
        print(stored, (await queue.counts()).queued)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_file_that_stays_locked_fails_calls_in_time_and_loses_nothing(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db", busy_timeout="100ms") as queue:
        await queue.queue("before")
        (owned,) = (await lease(queue)).started

        with locked(tmp_path / "q.db"):
            with pytest.raises(StoreUnavailableError, match="locked"):
                await queue.queue("during")
            with pytest.raises(StoreUnavailableError, match="locked"):
                await owned.complete()
            assert (await queue.get("before")).status is KeyStatus.IN_PROGRESS

        await queue.queue("after")
        assert await owned.complete()
        assert await eligible(queue) == ["after"]


async def test_calls_wait_for_a_lock_that_is_held_only_for_a_moment(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        with locked(tmp_path / "q.db"):
            waiting = [asyncio.ensure_future(queue.queue(f"key-{number}")) for number in range(20)]
            await asyncio.wait(waiting, timeout=0.02)
            assert not any(call.done() for call in waiting)

        await asyncio.gather(*waiting)

        assert len(await eligible(queue)) == 20


async def test_a_key_started_after_a_wait_longer_than_a_lease_is_kept(tmp_path: Path) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.queue("a")
        with locked(tmp_path / "q.db"):
            starting = asyncio.ensure_future(lease(queue))
            await asyncio.sleep(0)
            clock.advance(timedelta(seconds=20))
        (owned,) = (await starting).started

        clock.advance(timedelta(seconds=1))
        assert await owned.complete()


async def whose_settle_failed(queue: SqliteQueue, file: Path) -> OwnedInProgressKey:
    """The owned key of an attempt that could not be completed because the file was locked."""
    await queue.queue("a")
    (owned,) = (await lease(queue)).started
    with locked(file), pytest.raises(StoreUnavailableError):
        await owned.complete()
    return owned


async def test_a_lease_is_renewed_on_after_a_settle_that_failed(tmp_path: Path) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock, busy_timeout="10ms") as queue:
        owned = await whose_settle_failed(queue, tmp_path / "q.db")

        clock.advance(timedelta(minutes=1))

        assert (await lease(queue)).recovered == []
        assert await owned.complete()


async def test_a_settle_that_fails_until_its_lease_is_over_is_lost(tmp_path: Path) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock, busy_timeout="10ms") as queue:
        owned = await whose_settle_failed(queue, tmp_path / "q.db")
        with locked(tmp_path / "q.db"):
            clock.advance(timedelta(seconds=14))

        assert owned.lost.is_set()
        assert not await owned.complete()


async def test_a_renewal_that_finds_the_file_locked_says_so_in_time(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db", FakeClock()) as queue:
        await queue.queue("a")
        (owned,) = (await lease(queue)).started
        lease_of = owned.lease  # type: ignore[attr-defined]

        with locked(tmp_path / "q.db"), pytest.raises(StoreUnavailableError, match="no answer"):
            await asyncio.to_thread(queue._renew, [lease_of], 0.05)

        renewed = await asyncio.to_thread(queue._renew, [lease_of], 5.0)

    assert list(renewed.kept) == [lease_of]


async def test_a_renewal_that_gave_up_does_not_prolong_the_lease_later(tmp_path: Path) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.queue("a")
        (owned,) = (await lease(queue)).started
        with locked(tmp_path / "q.db"), pytest.raises(StoreUnavailableError):
            await asyncio.to_thread(queue._renew, [owned.lease], 0.05)  # type: ignore[attr-defined]
        await queue.queue("b")  # committed after whatever was left waiting
        owned.abandon()

        clock.freeze(timedelta(seconds=16))

        assert [orphan.key for orphan in (await queue.lease(LeaseRequest(0, 1))).recovered] == ["a"]


def test_a_full_disk_refuses_enqueues_loses_none_and_recovers(tmp_path: Path) -> None:
    ended = python(FULL_DISK, tmp_path / "q.db")

    assert ended.code == 0, ended.err
    stored, queued = map(int, ended.out.split())
    assert stored > 0
    assert queued == stored + 2


async def test_a_database_that_may_not_grow_still_lets_what_fits_pass(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        pages = await queue._ask(lambda store: store.connection.execute("PRAGMA page_count").fetchone()[0])
        await queue._ask(lambda store: store.connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())
        big, *small = [Options(payload=b"x" * 200_000), *[Options()] * 5]

        answers = await asyncio.gather(
            *[queue.queue(f"key-{number}", options) for number, options in enumerate((big, *small))],
            return_exceptions=True,
        )

        assert [type(answer) for answer in answers] == [StoreUnavailableError, *[type(None)] * 5]
        assert len(await eligible(queue)) == 5


@pytest.mark.parametrize("replacement", [None, b""])
async def test_a_file_that_was_deleted_or_replaced_takes_no_more_keys(
    tmp_path: Path, replacement: bytes | None
) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        (tmp_path / "q.db").unlink()
        if replacement is not None:
            (tmp_path / "q.db").write_bytes(replacement)

        with pytest.raises(StoreUnusableError, match="moved, deleted or replaced"):
            await queue.queue("b")


async def test_a_damaged_page_is_reported_as_damage(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(f"key-{number}", Options()) for number in range(2000)])
    content = bytearray((tmp_path / "q.db").read_bytes())
    content[16384:] = b"\xff" * (len(content) - 16384)
    (tmp_path / "q.db").write_bytes(content)

    with pytest.raises(StoreUnusableError, match="damaged"):
        async with sqlite_queue(tmp_path / "q.db") as queue:
            await lease(queue)


GARBAGE = ["'abc'", "x'ff'", "1e300", "-9e999", "''", "-1", "9223372036854775807", "CAST(x'ff00fe' AS TEXT)"]


@pytest.mark.parametrize("value", GARBAGE)
async def test_a_queued_row_of_garbage_is_processed_like_any_other(tmp_path: Path, value: str) -> None:
    async with sqlite_queue(tmp_path / "q.db", FakeClock()) as queue:
        await queue.queue("odd", Options(payload=b"x", meta={"m": "1"}))
        await queue.queue("even", Options(priority=-1))
        columns = ("priority", "attempts", "queued_us", "first_queued_us", "floor", "payload", "meta", "stamp")
        changes = ", ".join(f"{column} = {value}" for column in columns)
        with shell(tmp_path / "q.db") as hand:
            hand.execute(f"UPDATE queued SET key = CAST({value} AS TEXT), {changes} WHERE key = 'odd'")

        await see_everything(queue)
        first, second = sorted((await lease(queue)).started, key=lambda owned: owned.key == "even")
        assert second.key == "even"
        assert await first.release()
        assert sorted([queued.key for queued in (await queue.enumerate()).queued]) == [first.key]
        (again,) = (await lease(queue)).started
        assert again.key == first.key
        assert await again.dead_letter("boom")
        await see_everything(queue)


@pytest.mark.parametrize("value", GARBAGE)
async def test_a_running_or_dead_row_of_garbage_is_processed_like_any_other(tmp_path: Path, value: str) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        for key in ("dead", "running"):
            await queue.queue(key, Options(payload=b"x"))
        running, dead = sorted((await lease(queue)).started, key=lambda owned: owned.key == "dead")
        await dead.dead_letter("boom")
        running.abandon()
        columns = ("priority", "attempts", "queued_us", "first_queued_us", "payload", "meta")
        with shell(tmp_path / "q.db") as hand:
            changes = ", ".join(f"{column} = {value}" for column in columns)
            hand.execute(f"UPDATE in_progress SET {changes}, owner = {value}, boot = {value}")
            hand.execute(f"UPDATE dead SET {changes}, error = {value}, failed_us = {value}")

        await see_everything(queue)
        (orphan,) = (await queue.lease(LeaseRequest(0, 1))).recovered
        assert orphan.key == "running"
        (letter,) = [letter async for letter in (await queue.enumerate()).dead_letters]
        assert await letter.requeue()
        await see_everything(queue)


async def see_everything(queue: SqliteQueue) -> None:
    """Look at all there is, as an operator's programs do."""
    snapshot = await queue.enumerate()
    for key, queued in [(each.key, each.queued_time) for each in snapshot.queued]:
        assert (await queue.get(key)).queued_time == queued
    assert all(observed.queued_time.year >= 1970 for observed in snapshot.in_progress)
    async for letter in snapshot.dead_letters:
        assert (letter.queued_time.year, letter.failed_time.year) >= (1970, 1970)
    await queue.counts()


@pytest.mark.parametrize(
    "slip",
    [
        "UPDATE queued SET key = x'61'",
        "UPDATE queued SET place = 7",
        "UPDATE queued SET not_before_us = 'tomorrow'",
        "UPDATE in_progress SET expires_us = 'later'",
        "UPDATE in_progress SET token = 'mine'",
    ],
)
async def test_a_slip_of_the_hand_that_would_leave_a_key_stuck_is_refused(tmp_path: Path, slip: str) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        await lease(queue)
        await queue.queue("a")
        with shell(tmp_path / "q.db") as hand, pytest.raises(sqlite3.IntegrityError):
            hand.execute(slip)


async def test_settings_of_garbage_limit_nothing(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        with shell(tmp_path / "q.db") as hand:
            hand.execute("UPDATE queues SET concurrency = 'x', starts_per_second = -1, saved_starts = 'y'")

        assert await queue.configuration() == Configuration()
        assert len((await lease(queue)).started) == 1


async def test_rows_deleted_by_hand_leave_the_counts_right_and_free_their_slots(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(f"key-{number}", Options()) for number in range(5)])
        await queue.lease(LeaseRequest(1, 1))
        with shell(tmp_path / "q.db") as hand:
            hand.execute("DELETE FROM in_progress")
            hand.execute("DELETE FROM queued WHERE key = 'key-1'")

        assert (await queue.counts()).queued == 3
        assert len((await queue.lease(LeaseRequest(1, 1))).started) == 1


@pytest.mark.parametrize("seconds", [0, -60], ids=["at once", "with a not-before"])
async def test_a_lease_deleted_by_hand_frees_what_was_queued_meanwhile_once_the_queue_is_opened_again(
    tmp_path: Path, seconds: int
) -> None:
    not_before = datetime.now(UTC) + timedelta(seconds=seconds) if seconds else None
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        (stale,) = (await lease(queue)).started
        await queue.queue("a", Options(not_before=not_before))
        with shell(tmp_path / "q.db") as hand:
            hand.execute("DELETE FROM in_progress")

        async with sqlite_queue(tmp_path / "q.db") as again:
            assert [owned.key for owned in (await lease(again)).started] == ["a"]
        assert not await stale.complete()


async def test_a_key_in_progress_that_a_hand_made_eligible_does_not_stop_the_queue(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        (running,) = (await lease(queue)).started
        for key in "ab":
            await queue.queue(key)
        with shell(tmp_path / "q.db") as hand:
            hand.execute("UPDATE queued SET place = 0")

        with pytest.raises(StoreUnusableError):
            await lease(queue)
        assert [owned.key for owned in (await lease(queue)).started] == ["b"]
        assert await running.complete()
        assert [owned.key for owned in (await lease(queue)).started] == ["a"]


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)])
async def test_a_jump_of_the_wall_clock_ends_no_lease_and_strands_no_key(tmp_path: Path, jump: timedelta) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.configure(Configuration(starts_per_second=0.5))
        await queue.queue_many([("a", Options()), ("b", Options())])
        (owned,) = (await lease(queue)).started

        clock.jump_wall(jump)
        started = list((await lease(queue)).started)  # from now on, starts are saved up again
        clock.advance(timedelta(seconds=2))
        started += (await lease(queue)).started

        assert not owned.lost.is_set()
        assert [other.key for other in started] == ["b"]
        assert await owned.complete()


async def test_a_lease_of_another_boot_is_an_orphan_at_once(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        await lease(queue)
        with shell(tmp_path / "q.db") as hand:
            hand.execute("UPDATE in_progress SET boot = boot + 1")

        assert [observed.orphaned for observed in (await queue.enumerate()).in_progress] == [True]
        await queue.wait(timedelta(hours=1), 1)
        assert [orphan.key for orphan in (await lease(queue)).recovered] == ["a"]

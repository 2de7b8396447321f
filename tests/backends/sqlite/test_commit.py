"""Group commit: what waits goes together, one bad call fails alone, and nobody who leaves leaves anything behind."""

from __future__ import annotations

import asyncio
import itertools
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.dispatching import until
from tests.support.sqlite import MANY, eligible, lease, locked, shell, sqlite_queue
from workqueue import KeyStatus, Options, StoreUnavailableError
from workqueue.backends.sqlite.backend import SqliteQueue
from workqueue.backends.sqlite.store import Ask
from workqueue.errors import QueueClosedError, StoreUnusableError
from workqueue.optional import LeaseRequest
from workqueue.testing import FakeClock


async def traced(queue: SqliteQueue) -> list[str]:
    """Every statement that the writer runs from now on."""
    statements: list[str] = []
    await queue._ask(lambda store: store.connection.set_trace_callback(statements.append), durable=False)
    return statements


async def test_calls_that_wait_together_are_committed_together(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        statements = await traced(queue)

        await asyncio.gather(*[queue.queue(f"key-{number}") for number in range(100)])

        assert statements.count("COMMIT") <= 5
        assert len(await eligible(queue)) == 100


async def test_one_call_that_fails_does_not_fail_the_others_of_its_batch(tmp_path: Path) -> None:
    def broken(attempts: int) -> timedelta:
        raise ZeroDivisionError

    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.queue("a")
        (await lease(queue)).started[0].abandon()
        clock.freeze(timedelta(minutes=1))

        answers = await asyncio.gather(
            queue.queue("b"), queue.lease(LeaseRequest(1, 1, backoff=broken)), queue.queue("c"), return_exceptions=True
        )

        assert [type(answer) for answer in answers] == [type(None), ZeroDivisionError, type(None)]
        assert await eligible(queue) == ["b", "c"]
        assert (await queue.get("a")).status is KeyStatus.IN_PROGRESS


async def test_of_two_settles_of_one_lease_in_one_batch_the_first_is_applied(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        (owned,) = (await lease(queue)).started

        assert list(await asyncio.gather(owned.release(), owned.complete())) == [True, False]
        assert (await queue.get("a")).attempts == 0


async def test_a_burst_larger_than_one_transaction_is_stored_whole_and_in_order(tmp_path: Path) -> None:
    keys = [f"key-{number:04}" for number in range(3500)]
    async with sqlite_queue(tmp_path / "q.db") as queue:
        first = asyncio.ensure_future(queue.queue_many([(key, Options()) for key in keys[:2500]]))
        await asyncio.gather(first, *[queue.queue(key) for key in keys[2500:]])

        assert [queued.key for queued in (await queue.enumerate(5000)).queued] == keys


async def test_a_large_enqueue_lets_everybody_else_have_their_turn(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        large = asyncio.ensure_future(queue.queue_many([(f"k{number}", Options()) for number in range(10_000)]))
        await asyncio.sleep(0)

        await queue.queue("small")

        assert (await queue.counts()).queued < 5_000
        await large
        assert (await queue.counts()).queued == 10_001


async def test_a_cancelled_enqueue_hurts_nobody(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        with locked(tmp_path / "q.db"):
            calls = [asyncio.ensure_future(queue.queue(f"key-{number}")) for number in range(10)]
            await asyncio.sleep(0)
            for call in calls[::2]:
                call.cancel()
            await asyncio.wait(calls, timeout=0.02)

        await asyncio.gather(*calls[1::2])

        assert {f"key-{number}" for number in range(1, 10, 2)} <= set(await eligible(queue))


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancelled_lease_hands_back_the_keys_it_started(tmp_path: Path, steps: int) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(f"key-{number}", Options()) for number in range(5)])
        leasing = asyncio.ensure_future(lease(queue))
        for _ in range(steps):
            await asyncio.sleep(0)
        leasing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leasing

        assert await handed_back(queue) == [(f"key-{number}", 0) for number in range(5)]


async def test_a_lease_cancelled_when_its_answer_is_already_there_hands_back_its_keys(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue_many([(f"key-{number}", Options()) for number in range(5)])
        with locked(tmp_path / "q.db"):
            leasing = asyncio.ensure_future(lease(queue))
            await asyncio.sleep(0)
            beside = queue._writer.submit(Ask(lambda store: None), durable=False)  # answered together with the lease
            beside.add_done_callback(lambda _: leasing.cancel())
            await asyncio.wait({leasing}, timeout=0.02)
        await asyncio.wait({leasing})

        assert leasing.cancelled()
        assert await handed_back(queue) == [(f"key-{number}", 0) for number in range(5)]


async def test_a_cancelled_start_hands_back_its_key(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        (queued,) = (await queue.enumerate()).queued
        starting = asyncio.ensure_future(queued.start())
        await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait({starting})

        assert await handed_back(queue) == [("a", 0)]


async def handed_back(queue: SqliteQueue) -> list[tuple[str, int]]:
    """Every eligible key with its attempts, once the calls under way and what follows from them are committed."""
    for _ in range(2):
        await queue._ask(lambda store: None)
    return [(queued.key, queued.attempts) for queued in (await queue.enumerate(MANY)).queued]


@pytest.mark.parametrize("verb", ["complete", "requeue", "release", "dead_letter"])
async def test_a_cancelled_settle_is_applied_or_its_key_is_recovered(tmp_path: Path, verb: str) -> None:
    clock = FakeClock()
    async with sqlite_queue(tmp_path / "q.db", clock) as queue:
        await queue.queue("a")
        (owned,) = (await lease(queue)).started
        settling = asyncio.ensure_future(getattr(owned, verb)(*["boom"][: verb == "dead_letter"]))
        await asyncio.sleep(0)
        settling.cancel()
        await asyncio.wait({settling})

        clock.advance(timedelta(minutes=1))
        recovered = (await queue.lease(LeaseRequest(0, 1))).recovered

        counts = await queue.counts()
        assert counts.in_progress == 0
        assert bool(recovered) <= bool(counts.queued)


@pytest.mark.parametrize("call", ["enumerate", "counts", "configuration"])
async def test_a_cancelled_read_hurts_nobody(tmp_path: Path, call: str) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        reads = [asyncio.ensure_future(getattr(queue, call)()) for _ in range(5)]
        await asyncio.sleep(0)
        for read in reads[:4]:
            read.cancel()

        await reads[4]

        assert (await queue.get("a")).status is KeyStatus.QUEUED


async def test_closing_answers_every_call_that_waits(tmp_path: Path) -> None:
    queue = await sqlite_queue(tmp_path / "q.db").__aenter__()
    calls = [asyncio.ensure_future(queue.queue(f"key-{number}")) for number in range(200)]
    waiting = asyncio.ensure_future(queue.wait(timedelta(hours=1), 1))
    await asyncio.sleep(0)

    await queue.__aexit__()
    answers = await asyncio.gather(*calls, waiting, return_exceptions=True)

    async with sqlite_queue(tmp_path / "q.db") as again:
        stored = await eligible(again)
    assert len(stored) == sum(answer is None for answer in answers[:-1]) == 200


async def test_closing_while_the_file_is_locked_fails_what_waits_and_ends(tmp_path: Path) -> None:
    queue = await sqlite_queue(tmp_path / "q.db", busy_timeout="100ms").__aenter__()
    with locked(tmp_path / "q.db"):
        calls = [asyncio.ensure_future(queue.queue(f"key-{number}")) for number in range(20)]
        await asyncio.sleep(0)
        await queue.__aexit__()
        answers = await asyncio.gather(*calls, return_exceptions=True)

    assert {type(answer) for answer in answers} == {StoreUnavailableError}


async def test_a_closed_queue_says_so_and_leaves_no_thread(tmp_path: Path) -> None:
    threads = threading.active_count()
    async with sqlite_queue(tmp_path / "q.db") as queue:
        await queue.queue("a")
        (owned,) = (await lease(queue)).started
        (letters,) = [(await queue.enumerate()).dead_letters]

    closed = [queue.queue("b"), queue.enumerate(), queue.counts(), lease(queue), owned.complete(), anext(letters)]
    answers = await asyncio.gather(*closed, queue.wait(timedelta(0), 1), return_exceptions=True)

    assert {type(answer) for answer in answers} == {QueueClosedError}
    await until(lambda: threading.active_count() <= threads + 1)  # asyncio keeps one for `to_thread`


async def test_closing_can_be_cancelled_and_leaves_no_thread_all_the_same(tmp_path: Path) -> None:
    threads = threading.active_count()
    queue = await sqlite_queue(tmp_path / "q.db", busy_timeout="100ms").__aenter__()
    await queue.counts()  # starts the reader
    with locked(tmp_path / "q.db"):
        waiting = asyncio.ensure_future(queue.queue("a"))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(queue.__aexit__())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait((closing, waiting))

    await until(lambda: threading.active_count() <= threads)
    assert isinstance(waiting.exception(), StoreUnavailableError)


async def test_a_queue_that_is_not_open_refuses_calls_instead_of_keeping_them(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no database " * 100)
    queue = sqlite_queue(tmp_path / "text")
    with pytest.raises(QueueClosedError):
        await queue.queue("a")
    with pytest.raises(StoreUnusableError):
        await queue.__aenter__()
    with pytest.raises(QueueClosedError):
        await queue.queue("a")


async def test_a_queue_that_was_closed_is_not_entered_again(tmp_path: Path) -> None:
    async with sqlite_queue(tmp_path / "q.db") as queue:
        pass
    with pytest.raises(QueueClosedError):
        await queue.__aenter__()


async def test_a_queue_can_be_opened_again(tmp_path: Path) -> None:
    for opened in range(3):
        async with sqlite_queue(tmp_path / "q.db") as queue:
            await queue.queue(f"key-{opened}")

    with shell(tmp_path / "q.db") as hand:
        assert hand.execute("SELECT count(*) FROM queued").fetchone() == (3,)


async def test_a_batch_costs_a_handful_of_statements_whatever_its_size(tmp_path: Path) -> None:
    """Beside a busy event loop every row that sqlite3 steps waits for the interpreter, so no batch steps its rows."""
    async with sqlite_queue(tmp_path / "q.db") as queue:
        statements = await traced(queue)
        await queue.queue_many([(f"key-{number}", Options()) for number in range(256)])
        leased = await queue.lease(LeaseRequest(256, 256))
        await asyncio.gather(*[owned.complete() for owned in leased.started])

    ours = list(itertools.groupby(statements))  # what its triggers run is traced under the name of the statement
    assert len(leased.started) == 256
    assert len(ours) < 60

"""What one dispatch round does: recover, start within the limits, call, settle, tell."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

import dispatcher
from dispatcher import Attempt, ErrorEvent
from tests.support.dispatching import (
    Ledger,
    Recorder,
    SlowQueue,
    clock_of,
    dead_letters,
    flaky,
    memory,
    nothing,
    opened,
    pass_time,
    states,
)
from workqueue import (
    InvalidKeyError,
    NonRetriableError,
    Options,
    Outcome,
    QueueKey,
    QueueKeys,
    RequeueAfter,
    RequeueNotBefore,
    StoreUnavailableError,
)
from workqueue.clock import from_us
from workqueue.errors import InvalidSettingError
from workqueue.optional import LeaseRequest
from workqueue.testing import FakeClock

A_LEASE = timedelta(seconds=20)  # and a try more
MINUTE = timedelta(minutes=1)


async def test_a_round_calls_each_key_once_and_completes_it() -> None:
    queue, ledger = memory(), Ledger()
    await queue.queue("a")
    await queue.queue("b")

    await dispatcher.handle(queue, concurrency=10, batch_size=5, callback=ledger, max_retry=3)

    assert ledger.called == {"a": 1, "b": 1}
    assert await states(queue, "a", "b") == {"a": "UNKNOWN", "b": "UNKNOWN"}


async def test_a_key_that_waits_for_its_next_attempt_says_why_the_last_one_failed() -> None:
    queue = memory()
    await queue.queue("a")

    async def fail(key: str, attempt: Attempt) -> None:
        raise RuntimeError("the disk is full")

    await dispatcher.handle(queue, callback=fail)

    assert (await queue.get("a")).last_error == "RuntimeError: the disk is full"


async def test_a_callback_is_told_all_about_its_attempt() -> None:
    queue = memory()
    seen: list[tuple[object, ...]] = []

    async def reconcile(key: str, attempt: Attempt) -> None:
        seen.append((key, attempt.key, attempt.priority, attempt.payload, attempt.meta["who"], attempt.attempts))
        seen.append((attempt.queued_time, attempt.remaining(), attempt.lost.is_set()))

    await queue.queue("a", Options(priority=7, payload=b"x", meta={"who": "me"}))
    now = from_us(queue.clock.wall_us())
    await dispatcher.handle(queue, callback=reconcile, max_run_time=MINUTE)

    assert seen == [("a", "a", 7, b"x", "me", 1), (now, MINUTE, False)]


@pytest.mark.parametrize(
    ("concurrency", "batch_size", "in_progress", "started"), [(3, 0, 0, 3), (10, 2, 0, 2), (2, 5, 0, 2), (3, 3, 2, 1)]
)
async def test_a_round_starts_no_more_than_the_batch_and_the_free_slots(
    concurrency: int, batch_size: int, in_progress: int, started: int
) -> None:
    queue, ledger = memory(), Ledger()
    for number in range(9):
        await queue.queue(f"k{number}")
    await opened(queue.peer()).lease(LeaseRequest(in_progress, 9))

    await dispatcher.handle(queue, concurrency=concurrency, batch_size=batch_size, callback=ledger)

    assert ledger.called.total() == started


async def test_a_requested_requeue_waits_and_may_be_pulled_forward_unless_it_is_a_floor() -> None:
    queue = memory()
    outcomes: dict[str, Outcome] = {"after": RequeueAfter(MINUTE), "floor": RequeueNotBefore(MINUTE)}

    async def reconcile(key: str, attempt: Attempt) -> Outcome:
        return outcomes[key]

    for key in outcomes:
        await queue.queue(key)
    await dispatcher.handle(queue, callback=reconcile)
    due = {key: ((await queue.get(key)).not_before, (await queue.get(key)).attempts) for key in outcomes}
    for key in outcomes:
        await queue.queue(key)

    in_a_minute = from_us(queue.clock.wall_us()) + MINUTE
    assert due == {"after": (in_a_minute, 0), "floor": (in_a_minute, 0)}
    assert (await queue.get("after")).not_before is None
    assert (await queue.get("floor")).not_before == in_a_minute


async def test_outcomes_may_be_raised_as_well_as_returned() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise RequeueAfter(MINUTE) if key == "a" else QueueKeys(QueueKey("c"))

    await queue.queue("a")
    await queue.queue("b")
    await dispatcher.handle(queue, callback=reconcile, max_retry=1)

    assert await states(queue, "a", "b", "c") == {"a": "QUEUED", "b": "UNKNOWN", "c": "QUEUED"}


async def test_a_failed_key_is_retried_with_a_backoff_and_then_dead_lettered() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise ValueError("no")

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile, max_retry=2, errors=errors, backoff=lambda attempts: MINUTE)
    await dispatcher.handle(queue, callback=reconcile, max_retry=2, errors=errors)
    waiting = await queue.get("a")
    clock_of(queue).advance(MINUTE)
    await dispatcher.handle(queue, callback=reconcile, max_retry=2, errors=errors)

    assert (waiting.attempts, waiting.not_before) == (1, from_us(queue.clock.wall_us()))
    assert await dead_letters(queue) == {"a": "ValueError: no"}
    assert errors.told == [("a", "requeued"), ("a", "dead-lettered")]


async def test_a_key_that_cannot_succeed_is_dropped() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise NonRetriableError("no such customer")

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile, max_retry=2, errors=errors)

    assert await states(queue, "a") == {"a": "UNKNOWN"}
    assert [event.failure.reason for event in errors.events] == ["no such customer"]


async def test_keys_asked_for_are_stored_before_the_asking_key_completes() -> None:
    queue = flaky()

    async def reconcile(key: str, attempt: Attempt) -> QueueKeys:
        return QueueKeys(QueueKey("b", priority=3, delay=MINUTE, payload=b"x"), QueueKey("c"))

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile)
    asked = [call for call, _ in queue.calls]
    child = await queue.get("b")

    assert asked == ["queue", "lease", "queue_many", "complete"]
    assert await states(queue, "a", "b", "c") == {"a": "UNKNOWN", "b": "QUEUED", "c": "QUEUED"}
    assert (child.priority, child.payload) == (3, b"x")
    assert child.not_before == from_us(queue.clock.wall_us()) + MINUTE


async def test_an_attempt_whose_keys_cannot_be_stored_has_failed() -> None:
    queue, errors = flaky(), Recorder()
    queue.fail("queue_many", times=1000)

    async def reconcile(key: str, attempt: Attempt) -> QueueKeys:
        return QueueKeys(QueueKey("b"))

    await queue.queue("a")
    round_ = dispatcher.handle_async(queue, callback=reconcile, errors=errors)
    await pass_time(queue, A_LEASE)
    await round_

    assert await states(queue, "a", "b") == {"a": "QUEUED", "b": "UNKNOWN"}
    assert errors.told == [("a", "requeued")]


@pytest.mark.parametrize("nonsense", [42, "done", True, ValueError("returned, not raised"), object()])
async def test_a_callback_that_returns_nonsense_has_failed(nonsense: object) -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> object:
        return nonsense

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile, errors=errors)  # type: ignore[arg-type]

    assert errors.told == [("a", "requeued")]
    assert type(nonsense).__name__ in errors.events[0].failure.error


async def test_a_child_that_cannot_be_queued_fails_the_callback_that_asked_for_it() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> QueueKeys:
        return QueueKeys(QueueKey(""))

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile, errors=errors)

    assert errors.events[0].failure.error.startswith(InvalidKeyError.__name__)


async def test_a_keyboard_interrupt_in_a_callback_fails_its_key_before_it_ends_the_round() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        if key == "a":
            raise KeyboardInterrupt
        await asyncio.sleep(0)

    await queue.queue("a")
    await queue.queue("b")
    with pytest.raises(KeyboardInterrupt):
        await dispatcher.handle(queue, callback=reconcile, errors=errors)

    assert errors.told == [("a", "requeued")]
    assert await states(queue, "a", "b") == {"a": "QUEUED", "b": "UNKNOWN"}


async def test_a_callback_may_raise_any_base_exception_of_its_own() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise GeneratorExit if key == "a" else asyncio.CancelledError

    await queue.queue("a")
    await queue.queue("b")
    await dispatcher.handle(queue, callback=reconcile, errors=errors)

    assert errors.told == [("a", "requeued"), ("b", "requeued")]


async def test_a_callback_that_cancels_its_own_task_is_settled_all_the_same() -> None:
    queue = opened(SlowQueue(clock=FakeClock()))

    async def reconcile(key: str, attempt: Attempt) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile)

    assert await states(queue, "a") == {"a": "UNKNOWN"}


class Raising(Recorder):
    """A sink for events that is not what it promised to be."""

    def send(self, event: ErrorEvent) -> None:
        raise OSError("no")


async def test_a_sink_that_raises_when_told_of_an_orphan_costs_no_key() -> None:
    queue = memory()
    await queue.queue("orphan")
    (await queue.lease(LeaseRequest(1, 1))).started[0].abandon()
    await queue.queue("a")
    clock_of(queue).advance(MINUTE)

    await dispatcher.handle(queue, callback=nothing, max_retry=1, errors=Raising())

    assert await states(queue, "orphan", "a") == {"orphan": "DEAD_LETTER", "a": "UNKNOWN"}


async def test_orphans_are_recovered_and_those_out_of_attempts_are_told_of() -> None:
    queue, errors, ledger = memory(), Recorder(), Ledger()
    await queue.queue("a")
    for owned in (await opened(queue.peer(owner="crashed")).lease(LeaseRequest(1, 1))).started:
        owned.abandon()
    clock_of(queue).advance(MINUTE)

    await dispatcher.handle(queue, callback=ledger, max_retry=1, errors=errors)

    assert ledger.called == {}
    assert errors.told == [("a", "dead-lettered")]
    assert errors.events[0].failure.error.startswith("OrphanedError")


async def test_a_store_error_on_one_key_does_not_stop_the_others() -> None:
    queue, ledger = flaky(), Ledger(steps=2)
    for key in ("a", "b", "c"):
        await queue.queue(key)
    queue.fail("complete", key="a", times=1000)

    round_ = dispatcher.handle_async(queue, callback=ledger)
    await pass_time(queue, A_LEASE)
    with pytest.raises(ExceptionGroup) as raised:
        await round_

    assert raised.group_contains(StoreUnavailableError)
    assert ledger.ended == {"a": 1, "b": 1, "c": 1}
    assert await states(queue, "b", "c") == {"b": "UNKNOWN", "c": "UNKNOWN"}


async def test_a_key_whose_settle_failed_is_recovered_within_one_lease_and_one_round() -> None:
    queue, ledger = flaky(), Ledger()
    await queue.queue("a")
    queue.fail("complete", times=1000)
    round_ = dispatcher.handle_async(queue, callback=ledger)
    await pass_time(queue, A_LEASE)
    with pytest.raises(ExceptionGroup):
        await round_

    queue.mend("complete")
    clock_of(queue).advance(queue.lease_times.duration)
    await dispatcher.handle(queue, callback=ledger)

    assert ledger.ended == {"a": 2}
    assert await states(queue, "a") == {"a": "UNKNOWN"}


async def test_a_round_on_a_store_that_is_down_raises_and_starts_nothing() -> None:
    queue, ledger = flaky(), Ledger()
    await queue.queue("a")
    queue.fail("lease")

    with pytest.raises(StoreUnavailableError):
        await dispatcher.handle(queue, callback=ledger)

    assert ledger.called == {}


async def test_handle_async_runs_beside_its_caller() -> None:
    queue, ledger = memory(), Ledger(steps=5)
    await queue.queue("a")

    future = dispatcher.handle_async(queue, callback=ledger)
    done_at_once = future.done()
    await future

    assert not done_at_once
    assert ledger.ended == {"a": 1}


async def test_two_dispatchers_share_one_queue_without_sharing_a_key() -> None:
    queue, ledger = memory(), Ledger(steps=3)
    for number in range(20):
        await queue.queue(f"k{number}")

    for _ in range(5):
        rounds = [
            dispatcher.handle_async(handle, callback=ledger, concurrency=4) for handle in (queue, opened(queue.peer()))
        ]
        await asyncio.gather(*rounds)

    assert ledger.called == Counter({f"k{number}": 1 for number in range(20)})


@pytest.mark.parametrize(
    "setting",
    [
        {"concurrency": 0},
        {"concurrency": True},
        {"batch_size": -1},
        {"max_retry": -1},
        {"max_run_time": timedelta(0)},
        {"poll_period": timedelta(seconds=-1)},
        {"drain_timeout": 5},
    ],
    ids=str,
)
async def test_a_bad_setting_is_refused_by_name(setting: dict[str, object]) -> None:
    with pytest.raises(InvalidSettingError, match=next(iter(setting))):
        await dispatcher.handle(memory(), callback=nothing, **setting)  # type: ignore[arg-type]


async def test_nothing_is_told_of_a_failure_whose_settle_was_not_applied() -> None:
    queue, errors = memory(), Recorder()

    async def reconcile(key: str, attempt: Attempt) -> None:
        taken = (await queue.enumerate(0)).in_progress[0]
        await taken.requeue()  # an operator takes the key away; the lease is not renewed before the callback ends
        raise ValueError("no")

    await queue.queue("a")
    await dispatcher.handle(queue, callback=reconcile, errors=errors)

    assert errors.told == []
    assert (await queue.get("a")).not_before is None

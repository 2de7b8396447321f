"""A callback that works in an `asyncio.TaskGroup`: what it raised is seen, and said, as if there were no group."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import dispatcher
from dispatcher import Attempt, Dispatcher, DispatcherSettings, TargetUnavailableError
from dispatcher.outage import IN_A_ROW
from tests.support.dispatching import Recorder, dead_letters, memory, pass_time, running, state, states
from workqueue import InfrastructureError, NonRetriableError, QueueKey, QueueKeys, RequeueAfter, RequeueNotBefore
from workqueue.errors import ExpiredError, RetryAfterError, Trouble
from workqueue.raised import as_one
from workqueue.safe_text import describe

MINUTE = timedelta(minutes=1)


class Grouped:
    """A callback each of whose keys raises an error of its own in a task group within a task group."""

    def __init__(self, **raised: Exception) -> None:
        self.raised = raised

    async def __call__(self, key: str, attempt: Attempt) -> None:
        if key in self.raised:
            async with asyncio.TaskGroup() as outer:
                outer.create_task(self.inner(key))

    async def inner(self, key: str) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.fail(key))

    async def fail(self, key: str) -> None:
        raise self.raised[key]


async def test_what_a_callback_asks_for_in_a_group_is_done() -> None:
    queue, errors = memory(), Recorder()
    grouped = Grouped(a=RequeueAfter(MINUTE), b=QueueKeys(QueueKey("c", delay=MINUTE)), d=NonRetriableError("never"))
    for key in ("a", "b", "d"):
        await queue.queue(key)

    await dispatcher.handle(queue, callback=grouped, errors=errors)

    assert await states(queue, "a", "b", "c", "d") == {"a": "QUEUED", "b": "UNKNOWN", "c": "QUEUED", "d": "UNKNOWN"}
    assert (await state(queue, "a")).attempts == 0
    assert [(event.key, event.failure.reason) for event in errors.events] == [("d", "never")]


async def test_an_error_in_a_group_is_named_in_its_dead_letter() -> None:
    queue = memory()
    await queue.queue("a")

    await dispatcher.handle(queue, callback=Grouped(a=ValueError("the real reason")), max_retry=1)

    assert await dead_letters(queue) == {"a": "ValueError: the real reason"}


async def test_a_target_that_is_down_is_seen_through_a_group() -> None:
    queue = memory()
    await queue.queue("a")

    async with running(Dispatcher(queue, Grouped(a=TargetUnavailableError("down")), DispatcherSettings(max_retry=1))):
        await pass_time(queue, MINUTE)

    assert await dead_letters(queue) == {}


def test_a_group_of_several_names_each_and_is_one_failure() -> None:
    group = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("one", [NonRetriableError("b")])])

    assert as_one(group) is group
    assert describe(group) == "ValueError: a; NonRetriableError: b"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (NonRetriableError, "NonRetriableError: a; NonRetriableError: b"),
        (InfrastructureError, "InfrastructureError: a; InfrastructureError: b"),
    ],
    ids=["final", "infrastructure"],
)
def test_a_group_whose_errors_agree_is_what_they_are(kind: type[Exception], text: str) -> None:
    one = as_one(ExceptionGroup("two", [kind("a"), kind("b")]))

    assert type(one) is kind
    assert str(one) == text


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        ([ExpiredError("a"), ExpiredError("b")], ExpiredError),
        ([ExpiredError("a"), NonRetriableError("b")], NonRetriableError),
        ([TargetUnavailableError("a"), TargetUnavailableError("b")], TargetUnavailableError),
        ([TargetUnavailableError("a"), InfrastructureError("b")], InfrastructureError),
        ([RetryAfterError(MINUTE, "a"), ValueError("b")], ExceptionGroup),
        ([RequeueAfter(MINUTE), QueueKeys()], ExceptionGroup),
        ([QueueKeys(), ValueError("b")], ExceptionGroup),
    ],
)
def test_a_group_is_of_the_nearest_kind_that_all_of_its_errors_are(
    raised: list[Exception], kind: type[Exception]
) -> None:
    assert type(as_one(ExceptionGroup("two", raised))) is kind


def test_requeues_in_a_group_meet_as_enqueues_do() -> None:
    soon, late, floor = RequeueAfter(MINUTE), RequeueAfter(3 * MINUTE), RequeueNotBefore(2 * MINUTE)

    assert as_one(ExceptionGroup("two", [late, soon])) is soon
    assert as_one(ExceptionGroup("all", [soon, floor, late])) is floor


def test_keys_to_queue_in_a_group_are_all_queued() -> None:
    one = as_one(ExceptionGroup("two", [QueueKeys(QueueKey("a")), QueueKeys(QueueKey("b"))]))

    assert isinstance(one, QueueKeys)
    assert one.keys == (QueueKey("a"), QueueKey("b"))


def test_the_longest_delay_counts_where_all_ask_for_one() -> None:
    one = as_one(ExceptionGroup("two", [RetryAfterError(3 * MINUTE, "a"), RetryAfterError(MINUTE, "b")]))

    assert isinstance(one, RetryAfterError)
    assert one.delay == 3 * MINUTE


@pytest.mark.parametrize("trouble", ["refused", "broken"])
def test_the_worst_trouble_with_the_target_counts(trouble: Trouble) -> None:
    one = as_one(ExceptionGroup("two", [TargetUnavailableError("a"), TargetUnavailableError("b", trouble)]))

    assert isinstance(one, TargetUnavailableError)
    assert one.trouble == trouble


async def test_a_target_that_is_down_for_each_of_several_calls_costs_no_attempt() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise ExceptionGroup("both", [TargetUnavailableError("one"), TargetUnavailableError("two")])

    for number in range(20):
        await queue.queue(f"k{number}")
    async with running(Dispatcher(queue, reconcile, DispatcherSettings(max_retry=1))):
        await pass_time(queue, MINUTE)

    assert await dead_letters(queue) == {}


async def test_a_group_with_a_call_that_failed_does_not_end_an_outage() -> None:
    queue, calls = memory(), 0

    async def reconcile(key: str, attempt: Attempt) -> None:
        nonlocal calls
        calls += 1
        if calls <= IN_A_ROW:
            raise TargetUnavailableError("down")
        raise ExceptionGroup("mixed", [TargetUnavailableError("down"), ValueError("of its own")])

    for number in range(20):
        await queue.queue(f"k{number}")
    async with running(Dispatcher(queue, reconcile, DispatcherSettings(concurrency=IN_A_ROW))) as dispatcher:
        await pass_time(queue, 3 * timedelta(seconds=1))

    assert dispatcher.metrics.is_target_down()
    assert calls < 2 * IN_A_ROW


def test_the_cause_of_an_infrastructure_error_is_named_through_its_group() -> None:
    error = InfrastructureError(ExceptionGroup("unhandled errors in a TaskGroup", [OSError("no route")]))

    assert str(error) == "OSError: no route"

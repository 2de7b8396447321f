"""A callback that works in an `asyncio.TaskGroup`: what it raised is seen, and said, as if there were no group."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

import dispatcher
from dispatcher import Attempt, Dispatcher, DispatcherSettings, TargetUnavailableError
from tests.support.dispatching import Recorder, dead_letters, memory, pass_time, running, state, states
from workqueue import InfrastructureError, NonRetriableError, QueueKey, QueueKeys, RequeueAfter
from workqueue.attempt import as_one
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


def test_the_cause_of_an_infrastructure_error_is_named_through_its_group() -> None:
    error = InfrastructureError(ExceptionGroup("unhandled errors in a TaskGroup", [OSError("no route")]))

    assert str(error) == "OSError: no route"

"""Errors whose own code breaks when they are looked at: whatever a callback raises, its attempt is settled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import timedelta

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings, handle
from tests.support.dispatching import Recorder, dead_letters, memory, running, settle_down, state, states
from workqueue import NonRetriableError, QueueKeys, RequeueAfter
from workqueue.errors import RetryAfterError
from workqueue.outcomes import QueueKey


class NoReason(NonRetriableError):
    def __init__(self) -> None:
        Exception.__init__(self, "no reason")
        self.reason = None  # type: ignore[assignment]


class BrokenReason(NonRetriableError):
    def __init__(self) -> None:
        Exception.__init__(self, "broken reason")

    def __getattribute__(self, name: str) -> object:
        if name == "reason":
            raise ValueError
        return super().__getattribute__(name)


class Unprintable(NonRetriableError):
    def __str__(self) -> str:
        raise SystemExit(3)


class Classless(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise ValueError("ask somebody else")


class Uninitialized(RequeueAfter):
    def __init__(self) -> None:
        Exception.__init__(self)


class LaterUninitialized(RetryAfterError):
    def __init__(self) -> None:
        Exception.__init__(self, "later")


class WithoutDelay(RequeueAfter):
    def next_delay(self) -> timedelta:
        return timedelta(seconds=-5)


def deep(error: Exception, levels: int) -> Exception:
    for _ in range(levels):
        error = ExceptionGroup("deeper", [error])
    return error


def two(kind: Callable[[], Exception]) -> Callable[[], Exception]:
    return lambda: ExceptionGroup("two", [kind(), kind()])


ODD: dict[str, Callable[[], Exception]] = {
    "no reason": NoReason,
    "a reason that raises": BrokenReason,
    "a text that exits": Unprintable,
    "a class that raises": Classless,
    "a class in a group that raises": two(Classless),
    "two without a reason": two(NoReason),
    "two whose reasons raise": two(BrokenReason),
    "two whose texts exit": two(Unprintable),
    "2000 groups in one another": lambda: deep(ValueError("the real reason"), 2000),
    "900 groups in one another": lambda: deep(ValueError("the real reason"), 900),
    "an outcome without a delay": Uninitialized,
    "an outcome with a delay that no store takes": lambda: WithoutDelay(timedelta(seconds=1)),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_whatever_a_callback_raises_its_attempt_is_settled(odd: Callable[[], Exception]) -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise odd()

    await queue.queue("a")
    async with running(Dispatcher(queue, reconcile, DispatcherSettings(max_retry=1))) as dispatcher:
        await settle_down()
        left = await queue.counts()

    outcomes = dispatcher.metrics.outcomes
    assert (left.in_progress, outcomes["dead-lettered"], outcomes["unsettled"]) == (0, 1, 0)


async def test_what_a_callback_returns_may_not_know_its_class() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        return Classless()  # type: ignore[return-value]

    await queue.queue("a")
    await handle(queue, callback=reconcile, max_retry=1)

    assert await dead_letters(queue) == {
        "a": "RuntimeError: what the callback raised cannot be read: ValueError: ask somebody else"
    }


async def test_a_group_however_deep_is_the_error_in_it() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise deep(ValueError("the real reason"), 2000)

    await queue.queue("a")
    await handle(queue, callback=reconcile, max_retry=1)

    assert await dead_letters(queue) == {"a": "ValueError: the real reason"}


async def test_an_error_that_names_no_delay_waits_for_the_backoff() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise LaterUninitialized

    await queue.queue("a")
    await handle(queue, callback=reconcile, backoff=lambda attempts: timedelta(seconds=7))

    waiting = await state(queue, "a")
    assert waiting.not_before is not None
    assert waiting.not_before.timestamp() - queue.clock.wall_us() / 1e6 == pytest.approx(7)


async def test_a_backoff_hook_that_exits_costs_nothing_but_itself() -> None:
    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> None:
        raise ValueError

    await queue.queue("a")
    await handle(queue, callback=reconcile, backoff=lambda attempts: sys.exit(3))

    assert await states(queue, "a") == {"a": "QUEUED"}


async def test_an_end_that_cannot_be_reported_is_an_end(caplog: pytest.LogCaptureFixture) -> None:
    class Deaf(Recorder):
        def send(self, event: object) -> None:
            raise ValueError("no ear")

    queue = memory()

    async def reconcile(key: str, attempt: Attempt) -> QueueKeys | None:
        if key == "a":
            raise ValueError
        return QueueKeys(QueueKey("c", delay=timedelta(hours=1)))

    for key in ("a", "b"):
        await queue.queue(key)
    await handle(queue, callback=reconcile, errors=Deaf(), max_retry=1)

    assert await states(queue, "a", "b", "c") == {"a": "DEAD_LETTER", "b": "UNKNOWN", "c": "QUEUED"}
    assert "the end of key 'a' could not be reported: ValueError: no ear" in caplog.text

"""Redis works while the dispatcher does: the next turn leaves first, and what is settled and leased leaves together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from tests.fakes.redis_server import shared_server
from tests.support.dispatching import settle_down, until
from tests.support.redis import fresh_name, lease, opened
from workqueue import Options, StoreUnusableError
from workqueue.backends.redis.backend import RedisQueue
from workqueue.backends.redis.calls import Call
from workqueue.backends.redis.carrier import Carrier
from workqueue.interface import OwnedInProgressKey


async def two_started(queue: RedisQueue) -> Sequence[OwnedInProgressKey]:
    await queue.queue_many([("a", Options()), ("b", Options())])
    return (await lease(queue)).started


def carried(monkeypatch: pytest.MonkeyPatch, seen: list[Any]) -> None:
    """Note the names of the scripts of each turn that is sent."""
    carry = Carrier.carry

    def noted(carrier: Carrier, turn: list[Call]) -> None:
        seen.append([call.script.name for call in turn])
        carry(carrier, turn)

    monkeypatch.setattr(Carrier, "carry", noted)


async def test_the_next_turn_leaves_before_the_answers_to_the_last_one_are_handed_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    async with opened(shared_server().url(fresh_name())) as queue:
        first, second = await two_started(queue)
        carried(monkeypatch, seen)
        queue.complete_soon(first, lambda answer: seen.append("first"))  # type: ignore[arg-type]
        await settle_down(2)  # the first is on its way, and cannot be answered yet
        queue.complete_soon(second, lambda answer: seen.append("second"))  # type: ignore[arg-type]
        await until(lambda: "second" in seen)

    assert seen == [["settle"], ["settle"], "first", "second"]


async def test_who_cannot_take_an_answer_keeps_nobody_else_from_the_next_turn() -> None:
    heard: list[bool | Exception] = []

    def refuse(answer: bool | Exception) -> None:
        heard.append(answer)
        if answer is True:
            raise ZeroDivisionError("a bug")

    async with opened(shared_server().url(fresh_name())) as queue:
        first, second = await two_started(queue)
        queue.complete_soon(first, refuse)  # type: ignore[arg-type]
        queue.complete_soon(second, heard.append)  # type: ignore[arg-type]
        await queue.queue("c")
        counts = await queue.counts()

    assert (counts.queued, counts.in_progress, heard[0]) == (1, 0, True)
    assert isinstance(heard[-1], StoreUnusableError)


async def test_a_busy_dispatcher_settles_and_leases_in_one_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[Any] = []
    done: list[str] = []

    async def noop(key: str, attempt: Attempt) -> None:
        done.append(key)

    async with opened(shared_server().url(fresh_name())) as queue:
        await queue.queue_many([(f"key-{number}", Options()) for number in range(1000)])
        carried(monkeypatch, turns)
        async with Dispatcher(queue, noop, DispatcherSettings(concurrency=40)):
            await until(lambda: len(done) == 1000)

    assert sorted(done) == sorted({f"key-{number}" for number in range(1000)})
    assert turns.count(["settle", "lease"]) > len(turns) / 2

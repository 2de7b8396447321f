"""Requests on their way: tries, delays and outcomes, on a fake clock and against real servers."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from dispatcher import Dispatcher
from dispatcher.relay.delivery import Delivery, backoff_after
from dispatcher.relay.forgetting import Forgetting
from dispatcher.relay.lanes import Lanes
from dispatcher.relay.metrics import RelayMetrics
from dispatcher.relay.outcomes import Outcomes
from dispatcher.relay.request import RelayedRequest
from dispatcher.relay.sender import Sender
from dispatcher.relay.settings import RelaySettings, retry_delay
from dispatcher.relay.target import ANY_TARGET
from tests.support.dispatching import clock_of, dead_letters, opened, pass_time, running, settle_down, state, until
from tests.support.relay import Got, Target
from workqueue import KeyStatus, Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.testing import FakeClock

SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
Answer = tuple[int, dict[str, str], bytes]


@dataclass
class Relaying:
    """A relay in this process, its queues in memory."""

    settings: RelaySettings = field(default_factory=RelaySettings)

    def __post_init__(self) -> None:
        clock = FakeClock()
        self.queue = opened(MemoryQueue("relay", clock=clock, max_payload=self.settings.max_payload))
        self.kept = opened(MemoryQueue("relay.outcomes", clock=clock))
        self.outcomes = Outcomes(self.kept)
        self.lanes = Lanes(self.queue, self.settings.per_target, clock)
        self.metrics = RelayMetrics("relay", self.lanes.down)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Dispatcher]:
        async with Sender(ANY_TARGET) as sender:
            delivery = Delivery(self.queue, self.outcomes, self.lanes, sender, self.settings, self.metrics)
            settings = self.settings.dispatcher(lambda attempts: retry_delay(attempts))
            async with running(Dispatcher(self.queue, delivery, settings)) as dispatcher, self.lanes.tended():
                yield dispatcher

    async def add(self, id_: str, target: Target, *, repeatable: bool = False) -> None:
        request = RelayedRequest.from_payload(_payload(target.port, repeatable=repeatable))
        await self.queue.queue(id_, Options(payload=request.to_payload()))

    def calls(self) -> dict[str, float]:
        return {
            labels[1]: value
            for name, labels, value in self.metrics.samples()
            if name == "workqueue_relay_calls_total" and isinstance(value, int) and value
        }


def _payload(port: int, *, repeatable: bool) -> bytes:
    head = {
        "v": 1,
        "method": "POST",
        "target": ["http", "127.0.0.1", port],
        "path": "/x",
        "headers": [],
        "timeout_ms": 10_000,
        "received_us": 1,
        "repeatable": repeatable,
    }
    return json.dumps(head).encode() + b"\nbody"


def answers(*statuses: int, **headers: str) -> Callable[[Got], Answer]:
    """Each status once, then 200."""
    left = iter(statuses)
    return lambda got: (next(left, 200), {name.replace("_", "-"): value for name, value in headers.items()}, b"said")


async def left(relaying: Relaying, target: Target, calls: int) -> None:
    """Return once the target was called so often, and the last call is settled."""
    await until(lambda: len(target.got) == calls)
    await until(lambda: sum(relaying.calls().values()) == calls)
    await settle_down()


def gone() -> Target:
    """A target that was there and is not any more."""
    target = Target()
    with target:
        return target


async def test_a_request_that_was_delivered_is_gone() -> None:
    relaying = Relaying()
    with Target() as target:
        async with relaying.running():
            await relaying.add("a", target)
            await left(relaying, target, 1)

    assert (await state(relaying.queue, "a")).status == KeyStatus.UNKNOWN
    assert (await state(relaying.kept, "a")).status == KeyStatus.UNKNOWN
    assert relaying.calls() == {"delivered": 1}


async def test_retries_come_after_1_s_doubling() -> None:
    relaying = Relaying()
    with Target(answers(500, 503, 429)) as target:
        async with relaying.running():
            await relaying.add("a", target)
            for calls, wait in enumerate((1, 2, 4), 1):
                await left(relaying, target, calls)
                await pass_time(relaying.queue, wait * SECOND - timedelta(milliseconds=1))
                assert len(target.got) == calls
                clock_of(relaying.queue).advance(timedelta(milliseconds=1))
            await left(relaying, target, 4)

    assert relaying.calls() == {"failed": 3, "delivered": 1}


def test_the_wait_ends_at_ten_minutes_and_half_of_it() -> None:
    assert [retry_delay(tries).total_seconds() for tries in (1, 2, 3, 10, 11, 1000)] == [1, 2, 4, 512, 600, 600]
    assert retry_delay(1000, rand=1.0) == 15 * MINUTE
    assert 2 * SECOND <= (backoff_after(1)(1) or MINUTE) < 3 * SECOND


async def test_a_target_says_when_to_come_back_and_that_try_counts() -> None:
    relaying = Relaying(RelaySettings(retry_limit=2))
    with Target(answers(503, 503, retry_after="60")) as target:
        async with relaying.running():
            await relaying.add("a", target)
            await left(relaying, target, 1)
            await pass_time(relaying.queue, 59 * SECOND, step=10 * SECOND)
            assert len(target.got) == 1
            clock_of(relaying.queue).advance(SECOND)
            await left(relaying, target, 2)

    assert await dead_letters(relaying.queue) == {"a": "RetryAfterError: the target answered 503: said"}


async def test_a_request_that_is_refused_is_kept_with_what_the_target_said() -> None:
    relaying = Relaying()
    with Target(answers(404)) as target:
        async with relaying.running():
            await relaying.add("a", target)
            await left(relaying, target, 1)

    assert await dead_letters(relaying.queue) == {"a": "NonRetriableError: the target answered 404: said"}
    assert relaying.calls() == {"refused": 1}


async def test_a_target_that_cannot_be_reached_uses_up_the_tries_of_those_that_were_sent() -> None:
    relaying = Relaying(RelaySettings(retry_limit=3))
    async with relaying.running():
        await relaying.add("a", gone())
        for tries in (1, 2, 3):
            await until(lambda tries=tries: relaying.calls().get("unreachable") == tries)  # type: ignore[misc]
            await settle_down()
            clock_of(relaying.queue).advance(5 * SECOND)

    assert list(await dead_letters(relaying.queue)) == ["a"]


async def test_a_request_that_was_put_off_has_as_many_tries_left_as_before() -> None:
    relaying = Relaying(RelaySettings(retry_limit=3))
    target = gone()
    async with relaying.running():
        await relaying.add("a", target)
        await until(lambda: relaying.calls() == {"unreachable": 1})
        for number in range(4):
            await relaying.add(f"other-{number}", target)
            await until(lambda number=number: relaying.calls() == {"unreachable": number + 2})  # type: ignore[misc]
        await settle_down()
        assert relaying.lanes.down() != {}
        probe = relaying.lanes.turn(f"127.0.0.1:{target.port}", "probe")
        clock_of(relaying.queue).advance(SECOND)
        async with probe:  # so that all others are put off
            await settle_down(200)
        put_off = await state(relaying.queue, "a")

    assert (put_off.status, put_off.attempts, put_off.meta["tries"]) == (KeyStatus.QUEUED, 0, "1")
    assert put_off.meta["put-off"].startswith(f"the target 127.0.0.1:{target.port} is down: http://")
    assert put_off.payload is not None
    limits = Delivery(
        relaying.queue, relaying.outcomes, relaying.lanes, Sender(ANY_TARGET), relaying.settings, relaying.metrics
    ).limits_of_key("a", put_off.meta)
    assert limits.max_retry == 2
    assert limits.backoff is not None
    assert (limits.backoff(1) or MINUTE) >= 2 * SECOND


async def test_the_log_counts_the_tries_from_before_a_request_was_put_off(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    relaying = Relaying()
    with Target(answers(500)) as target:
        async with relaying.running():
            payload = _payload(target.port, repeatable=False)
            await relaying.queue.queue("a", Options(payload=payload, meta={"tries": "3"}))
            await left(relaying, target, 1)
            clock_of(relaying.queue).advance(MINUTE)
            await left(relaying, target, 2)

    story = [text for text in caplog.messages if text.startswith(("key 'a' ", "request a "))]
    numbers = [re.findall(r"(?:attempt|try) (\d+)", text) for text in story]
    assert numbers == [["4"], ["4"], ["5"], ["5"], ["5"]], story


@pytest.mark.parametrize("tries", ["", "x", "-1", "٣", "9" * 30])
async def test_tries_that_nobody_could_have_noted_count_as_none(tries: str) -> None:
    relaying = Relaying()
    delivery = Delivery(
        relaying.queue, relaying.outcomes, relaying.lanes, Sender(ANY_TARGET), relaying.settings, relaying.metrics
    )

    assert delivery.limits_of_key("a", {"tries": tries}).max_retry is None


async def test_the_outcome_of_a_repeatable_request_is_known_for_a_day() -> None:
    relaying = Relaying()
    with Target(answers(500, 201)) as target:
        async with relaying.running():
            await relaying.add("a", target, repeatable=True)
            await left(relaying, target, 1)
            clock_of(relaying.queue).advance(SECOND)
            await left(relaying, target, 2)
            outcome = await relaying.outcomes.read("a")
            clock_of(relaying.queue).advance(DAY - SECOND)
            await Forgetting(relaying.kept).forget_due()
            still = await relaying.outcomes.read("a")
            clock_of(relaying.queue).advance(SECOND)
            await Forgetting(relaying.kept).forget_due()

    assert outcome is not None
    assert still == outcome
    assert (outcome.status, outcome.tries, outcome.path) == (201, 2, "/x")
    assert (await state(relaying.kept, "a")).status == KeyStatus.UNKNOWN


async def test_a_request_whose_delivery_was_noted_before_a_crash_is_not_sent_again() -> None:
    relaying = Relaying()
    with Target() as target:
        async with relaying.running():
            await relaying.add("a", target, repeatable=True)
            await left(relaying, target, 1)
            await relaying.add("a", target, repeatable=True)  # as after a crash between the outcome and the end
            await settle_down(200)

    assert len(target.got) == 1
    assert (await state(relaying.queue, "a")).status == KeyStatus.UNKNOWN


async def test_delivered_requests_are_kept_with_their_bodies_where_that_is_set() -> None:
    relaying = Relaying(RelaySettings(keep_delivered=7 * DAY))
    with Target() as target:
        async with relaying.running():
            await relaying.add("a", target)
            await left(relaying, target, 1)
            await until(lambda: relaying.kept.metrics.added == 1)

    kept = await state(relaying.kept, "a")
    assert kept.payload is not None
    assert kept.payload.endswith(b"\nbody")
    assert [id_ for id_, _ in await relaying.outcomes.listing(10)] == ["a"]


async def test_a_key_without_a_request_is_done_with() -> None:
    relaying = Relaying()
    async with relaying.running():
        await relaying.queue.queue("a")
        await settle_down(200)

    assert (await state(relaying.queue, "a")).status == KeyStatus.UNKNOWN


async def test_a_payload_that_is_no_request_is_kept_for_an_operator() -> None:
    relaying = Relaying()
    async with relaying.running():
        await relaying.queue.queue("a", Options(payload=b"what is this?"))
        await settle_down(200)

    [error] = (await dead_letters(relaying.queue)).values()
    assert error.startswith("UnreadableRequestError: The payload of this key is no request")

"""Whose turn it is: limits per target, targets that are down, and requests that are put off and called back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from dispatcher.outage import TargetUnavailableError
from dispatcher.relay.lanes import Lanes, PutOffError
from tests.support.dispatching import clock_of, memory, settle_down
from workqueue import Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import from_us

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
GONE = TargetUnavailableError("connection refused")


class Caller:
    """Calls a target for one key, and is answered when the test says so."""

    def __init__(self, lanes: Lanes, key: str, target: str = "b:80") -> None:
        self.is_calling = False
        self._answer: asyncio.Future[TargetUnavailableError | None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._call(lanes, target, key))

    async def _call(self, lanes: Lanes, target: str, key: str) -> timedelta | None:
        try:
            async with lanes.turn(target, key) as turn:
                self.is_calling = True
                error = await self._answer
                turn.answered() if error is None else turn.failed(error)
        except PutOffError as later:
            return later.delay
        return None

    async def answered(self, error: TargetUnavailableError | None = None) -> None:
        self._answer.set_result(error)
        await self.task

    async def put_off(self) -> timedelta:
        """For how long it was put off, by now."""
        await settle_down()
        delay = self.task.result()
        assert delay is not None
        return delay


async def calling(lanes: Lanes, *keys: str, target: str = "b:80") -> list[Caller]:
    callers = [Caller(lanes, key, target) for key in keys]
    await settle_down()
    return callers


async def lanes_of(queue: MemoryQueue, most: int = 2) -> Lanes:
    return Lanes(queue, most, clock_of(queue))


async def brought_down(lanes: Lanes, target: str = "b:80") -> None:
    for number in range(5):
        [caller] = await calling(lanes, f"{target}/down-{number}", target=target)
        await caller.answered(GONE)


async def test_a_target_has_only_as_many_calls_at_a_time_as_it_may_and_others_go_on() -> None:
    lanes = await lanes_of(memory())

    callers = await calling(lanes, "1", "2", "3")
    [other] = await calling(lanes, "4", target="c:80")

    assert [caller.is_calling for caller in (*callers, other)] == [True, True, False, True]
    await callers[0].answered()
    await settle_down()
    assert callers[2].is_calling


async def test_who_waits_longest_is_next() -> None:
    lanes = await lanes_of(memory(), most=1)
    callers = await calling(lanes, "1", "2", "3")

    await callers[0].answered()
    await settle_down()

    assert [caller.is_calling for caller in callers[1:]] == [True, False]


async def test_who_has_no_turn_within_a_second_is_put_off() -> None:
    queue = memory()
    lanes = await lanes_of(queue, most=1)
    busy, waiting = await calling(lanes, "1", "2")

    clock_of(queue).advance(SECOND)

    assert await waiting.put_off() == 5 * SECOND
    assert busy.is_calling


async def test_a_turn_that_comes_with_a_cancellation_goes_to_the_next() -> None:
    lanes = await lanes_of(memory(), most=1)
    first, second, third = await calling(lanes, "1", "2", "3")

    first._answer.set_result(None)
    await first.task
    second.task.cancel()
    await settle_down()

    assert third.is_calling


async def test_after_five_failed_calls_in_a_row_all_but_a_probe_are_put_off_at_once() -> None:
    queue = memory()
    lanes = await lanes_of(queue)
    await brought_down(lanes)

    early = await calling(lanes, "1", "2")
    clock_of(queue).advance(SECOND)
    probe, other = await calling(lanes, "3", "4")

    assert [await caller.put_off() for caller in (*early, other)] == [5 * SECOND] * 3
    assert probe.is_calling
    assert lanes.down() == {"b:80": 1.0}


async def test_a_target_that_goes_down_keeps_nobody_waiting() -> None:
    lanes = await lanes_of(memory(), most=1)
    callers = [await calling(lanes, f"{number}") for number in range(4)]
    for [caller] in callers:
        await caller.answered(GONE)
    last, waiting = await calling(lanes, "last", "waiting")

    await last.answered(GONE)

    assert await waiting.put_off() == 5 * SECOND


async def test_probes_come_less_often_the_longer_a_target_is_down() -> None:
    queue = memory()
    lanes = await lanes_of(queue)
    await brought_down(lanes)

    waits = []
    for wait in (1, 2, 4, 8, 16, 32, 60, 60):
        clock_of(queue).advance(wait * SECOND - timedelta(milliseconds=1))
        [early] = await calling(lanes, "early")
        clock_of(queue).advance(timedelta(milliseconds=1))
        [probe] = await calling(lanes, "probe")
        waits.append((early.is_calling, probe.is_calling))
        await probe.answered(GONE)

    assert waits == [(False, True)] * 8


async def test_an_answer_ends_the_outage_whatever_it_says() -> None:
    queue = memory()
    lanes = await lanes_of(queue)
    await brought_down(lanes)
    clock_of(queue).advance(SECOND)

    [probe] = await calling(lanes, "probe")
    await probe.answered()
    callers = await calling(lanes, "1", "2")

    assert lanes.down() == {}
    assert [caller.is_calling for caller in callers] == [True, True]


async def test_one_target_that_is_down_says_nothing_of_another() -> None:
    lanes = await lanes_of(memory())
    await brought_down(lanes)

    [other] = await calling(lanes, "1", target="c:80")

    assert other.is_calling


async def test_requests_are_put_off_for_as_long_again_as_their_target_has_been_down() -> None:
    queue = memory()
    lanes = await lanes_of(queue)
    await brought_down(lanes)

    delays = []
    for minutes in (1, 1, 28):
        clock_of(queue).advance(minutes * MINUTE)
        [probe, caller] = await calling(lanes, "probe", "1")
        delays.append(await caller.put_off())
        await probe.answered(GONE)

    assert delays == [MINUTE, 2 * MINUTE, 10 * MINUTE]


async def test_what_was_put_off_is_called_back_when_its_target_is_up_again() -> None:
    queue = memory()
    lanes = await lanes_of(queue)
    await brought_down(lanes)
    clock_of(queue).advance(MINUTE)
    probe, *others = await calling(lanes, "probe", "1", "2")
    for key, caller in zip(("1", "2"), others, strict=True):
        delay = await caller.put_off()
        not_before = from_us(clock_of(queue).wall_us()) + delay
        await queue.queue(key, Options(not_before=not_before, payload=b"kept"))

    async with lanes.tended():
        await probe.answered()
        await settle_down()
        clock_of(queue).advance(SECOND)
        await settle_down()

    snapshot = await queue.enumerate()
    assert [(queued.key, queued.payload) for queued in snapshot.queued] == [("1", b"kept"), ("2", b"kept")]


async def test_one_request_is_called_back_to_probe_a_target_for_which_no_other_comes() -> None:
    queue = memory()
    lanes = await lanes_of(queue)
    await brought_down(lanes)
    callers = await calling(lanes, "1", "2")
    for key, caller in zip(("1", "2"), callers, strict=True):
        not_before = from_us(clock_of(queue).wall_us()) + await caller.put_off()
        await queue.queue(key, Options(not_before=not_before))

    async with lanes.tended():
        await settle_down()
        clock_of(queue).advance(SECOND)
        await settle_down()

    assert [queued.key for queued in (await queue.enumerate()).queued] == ["1"]


async def test_a_request_that_comes_by_itself_soon_is_not_called_back() -> None:
    queue = memory()
    lanes = await lanes_of(queue)
    await brought_down(lanes)
    [caller] = await calling(lanes, "1")
    await caller.put_off()
    clock_of(queue).advance(4 * SECOND)

    async with lanes.tended():
        await settle_down()
        clock_of(queue).advance(SECOND)
        await settle_down()

    assert (await queue.counts()).queued == 0


async def test_a_target_nobody_asked_for_in_half_an_hour_is_forgotten() -> None:
    queue = memory()
    lanes = await lanes_of(queue)
    await brought_down(lanes)

    async with lanes.tended():
        await settle_down()
        clock_of(queue).advance(31 * MINUTE)
        await settle_down()

    assert lanes.down() == {}


@pytest.mark.parametrize("most", [1, 3])
async def test_no_turn_is_lost_by_callers_that_are_cancelled(most: int) -> None:
    lanes = await lanes_of(memory(), most)
    callers = await calling(lanes, *map(str, range(10)))

    for caller in callers:
        caller.task.cancel()
    await settle_down()

    again = await calling(lanes, *map(str, range(most)))
    assert all(caller.is_calling for caller in again)

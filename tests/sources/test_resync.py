"""A resync: every key once per period, evenly, in another order each time, whoever runs it and whatever fails."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.dispatching import settle_down, until
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.options import Options
from workqueue.sources.resync import ListingError, Resync, ResyncTimes, listed_by, place
from workqueue.testing import FakeClock

HOUR = timedelta(hours=1)
TIMES = ResyncTimes(HOUR, timedelta(minutes=5))
KEYS = [f"key-{number}" for number in range(240)]


class Sink:
    """Takes keys, unless it is down."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.priorities: set[int] = set()
        self.down = False

    async def queue_many(self, items: Iterable[tuple[str, Options]], /) -> None:
        if self.down:
            raise StoreUnavailableError
        for key, options in items:
            self.taken.append(key)
            self.priorities.add(options.priority)


def at_the_hour() -> FakeClock:
    return FakeClock(start_us=1_750_000_000_000_000 // 3_600_000_000 * 3_600_000_000)


async def passing(clock: FakeClock, duration: timedelta) -> None:
    for _ in range(int(duration.total_seconds() // 60)):
        clock.advance(timedelta(minutes=1))
        await settle_down(20)


async def running(resync: Resync, clock: FakeClock, duration: timedelta) -> None:
    task = asyncio.create_task(resync.run())
    await settle_down(20)
    await passing(clock, duration - timedelta(minutes=1))
    task.cancel()
    await asyncio.wait([task])
    clock.advance(timedelta(minutes=1))


async def test_every_key_has_its_turn_once_a_period_and_the_next_period_has_another_order() -> None:
    clock, sinks = at_the_hour(), [Sink(), Sink()]
    for sink in sinks:
        await running(Resync(lambda: KEYS, sink, TIMES, clock=clock), clock, HOUR)

    first, second = (sink.taken for sink in sinks)
    assert sorted(first) == sorted(second) == sorted(KEYS)
    assert first != second
    assert sinks[0].priorities == {-100}


async def test_no_slot_has_many_more_keys_than_another() -> None:
    clock, sizes = at_the_hour(), []
    for _ in range(TIMES.slots):
        sizes.append(await Resync(lambda: KEYS, Sink(), TIMES, clock=clock).once())
        clock.advance(TIMES.every)

    assert sum(sizes) == len(KEYS)
    assert max(sizes) < 2 * len(KEYS) / TIMES.slots


async def test_who_takes_over_in_the_middle_of_a_period_goes_on_where_the_other_stopped() -> None:
    clock, sink = at_the_hour(), Sink()
    for _ in range(2):
        await running(Resync(lambda: KEYS, sink, TIMES, clock=clock), clock, HOUR / 2)

    assert Counter(sink.taken) == Counter(KEYS)


async def test_a_slot_that_failed_is_done_with_the_next_one() -> None:
    async def keys() -> AsyncIterator[str]:
        for key in KEYS:
            yield key
        if broken:
            raise ConnectionError("the database went away")

    clock, sink = at_the_hour(), Sink()
    broken = sink.down = True
    task = asyncio.create_task(Resync(keys, sink, TIMES, clock=clock).run())
    await settle_down(20)
    await passing(clock, timedelta(minutes=12))
    sink.down = False
    await passing(clock, timedelta(minutes=12))
    broken = False
    await passing(clock, timedelta(minutes=36))
    task.cancel()

    assert set(sink.taken) >= {
        key for key in KEYS if place(key, clock.wall_us() // 3_600_000_000 - 1) < 2**64 * 59 // 60
    }


async def test_a_machine_that_slept_for_days_does_one_period() -> None:
    clock, sink = at_the_hour(), Sink()
    task = asyncio.create_task(Resync(lambda: KEYS, sink, TIMES, clock=clock).run())
    await settle_down(20)
    sink.taken.clear()
    clock.advance(timedelta(minutes=1))
    clock.freeze(timedelta(days=3))
    await settle_down(50)
    task.cancel()

    assert 0 < len(sink.taken) <= len(KEYS)


async def test_a_key_that_is_none_does_not_cost_the_others_their_turn(caplog: pytest.LogCaptureFixture) -> None:
    clock, sink = at_the_hour(), Sink()
    await running(Resync(lambda: ["", "good", "a\nb"], sink, ResyncTimes(HOUR, HOUR), clock=clock), clock, HOUR)

    assert sink.taken == ["good"]
    assert caplog.text.count("a key that is none") == 2


async def test_what_is_no_text_does_not_cost_the_others_their_turn(caplog: pytest.LogCaptureFixture) -> None:
    listed: list[Any] = [None, 5, b"k", "caf\udce9", "\ud800", "good"]
    clock, sink = at_the_hour(), Sink()
    await running(Resync(lambda: listed, sink, ResyncTimes(HOUR, HOUR), clock=clock), clock, HOUR)

    assert sink.taken == ["good"]
    assert caplog.text.count("a key that is none") == 5


async def raising() -> AsyncIterator[str]:
    yield "a"
    raise ConnectionError("the database is gone")


async def coroutine() -> list[str]:
    return ["a"]


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (raising, "could not be listed: ConnectionError: the database is gone"),
        (lambda: None, "not a NoneType"),
        (lambda: "abc", "not a str"),
        (coroutine, "not a coroutine"),
        (lambda missing: [missing], "could not be listed: TypeError"),
    ],
    ids=["raises", "None", "text", "coroutine", "takes an argument"],
)
async def test_a_function_that_lists_nothing_is_named_in_one_error(keys: Any, says: str) -> None:
    with pytest.raises(ListingError, match=says):
        await Resync(keys, Sink(), ResyncTimes(HOUR, HOUR)).once()


async def test_a_listing_that_fails_is_tried_again_and_shows_whose_error_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = at_the_hour()
    await running(Resync(raising, Sink(), ResyncTimes(HOUR, HOUR), clock=clock), clock, HOUR)

    assert "the database is gone; trying again" in caplog.text
    shown = caplog.records[0].exc_info
    assert shown is not None
    assert shown[0] is ConnectionError


@pytest.mark.parametrize("command", [[], ["no-such-program"], ["/"]], ids=["none", "absent", "a folder"])
def test_a_command_that_cannot_be_run_is_refused_at_once(command: list[str]) -> None:
    with pytest.raises(InvalidSettingError, match="no command that can be run here"):
        listed_by(command)


async def test_a_command_that_is_gone_later_or_writes_no_lines_is_named_in_one_error(tmp_path: Path) -> None:
    program = tmp_path / "keys"
    program.write_text(f"#!{sys.executable}\nprint('x' * 100_000)")
    program.chmod(0o700)
    resync = Resync(listed_by([str(program)]), Sink(), ResyncTimes(HOUR, HOUR))

    with pytest.raises(ListingError, match="a line of more than 65536 bytes"):
        await resync.once()
    program.unlink()
    with pytest.raises(ListingError, match=r"cannot be started: .*keys: No such file"):
        await resync.once()


async def test_a_command_may_list_the_keys() -> None:
    program = "import sys; print('a'); print('ü'); sys.exit(int(sys.argv[1]))"
    sink = Sink()
    for code in ("0", "3"):
        resync = Resync(listed_by([sys.executable, "-c", program, code]), sink, ResyncTimes(HOUR, HOUR))
        if code == "0":
            assert await resync.once() == 2
        else:
            with pytest.raises(ListingError, match="ended with 3"):
                await resync.once()
    assert set(sink.taken) == {"a", "ü"}


async def test_a_command_is_read_no_faster_than_its_keys_are_enqueued() -> None:
    class Slow(Sink):
        async def queue_many(self, items: Iterable[tuple[str, Options]], /) -> None:
            await super().queue_many(items)
            await asyncio.Event().wait()

    sink = Slow()
    resync = Resync(listed_by(["yes", "the-same-key"]), sink, ResyncTimes(HOUR, HOUR))
    task = asyncio.create_task(resync.once())
    await until(lambda: len(sink.taken) == 500)
    task.cancel()
    await asyncio.wait([task])

    assert len(sink.taken) == 500


@pytest.mark.parametrize(("period", "every"), [(60, 0), (0, 0), (60, 61), (60, 7), (60, -60)])
def test_slots_that_do_not_fill_a_period_are_refused(period: int, every: int) -> None:
    with pytest.raises(InvalidSettingError, match="whole"):
        ResyncTimes(timedelta(seconds=period), timedelta(seconds=every))

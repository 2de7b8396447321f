"""What a schedule says, how it is kept, and which of its ticks are due."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest

from tests.support.odd_json import with_odd_values
from workqueue.clock import LATEST_US, to_us
from workqueue.errors import InvalidKeyError, InvalidOptionsError, InvalidSettingError, UnsupportedError
from workqueue.sources.schedules import Schedule
from workqueue.sources.schedules.schedule import LAST_TICK, Due, due, last_tick_us

NOON = to_us(datetime(2026, 6, 1, 12, tzinfo=UTC))
MINUTE, HOUR, YEAR = 60_000_000, 3_600_000_000, 365 * 86400 * 1_000_000
EVERY_MINUTE = Schedule("s", "* * * * *", "k", since_us=NOON)


def decide(schedule: Schedule, now_us: int, last_us: int = NOON, *, begun: bool = False) -> Due:
    return due(schedule, schedule.ticks(), last_us, now_us, begun=begun)


def test_before_its_time_there_is_nothing_to_fire() -> None:
    assert decide(EVERY_MINUTE, NOON + MINUTE - 1) == Due(None, NOON, NOON + MINUTE)


def test_at_its_time_it_fires_and_looks_at_the_next() -> None:
    assert decide(EVERY_MINUTE, NOON + MINUTE) == Due(NOON + MINUTE, NOON + MINUTE, NOON + 2 * MINUTE)


def test_missed_ticks_are_made_up_for_once() -> None:
    assert decide(EVERY_MINUTE, NOON + HOUR) == Due(NOON + HOUR, NOON + HOUR, NOON + HOUR + MINUTE, missed=59)


def test_missed_ticks_may_be_skipped() -> None:
    skipping = Schedule("s", "0 * * * *", "k", missed="skip", since_us=NOON)

    late, in_time = decide(skipping, NOON + HOUR + 2 * MINUTE), decide(skipping, NOON + HOUR + MINUTE // 2)

    assert late == Due(None, NOON + HOUR, NOON + 2 * HOUR, missed=1)
    assert in_time == Due(NOON + HOUR, NOON + HOUR, NOON + 2 * HOUR)


def test_a_tick_that_somebody_began_to_fire_is_not_skipped() -> None:
    skipping = Schedule("s", "0 * * * *", "k", missed="skip", since_us=NOON)

    assert decide(skipping, NOON + HOUR + 20 * MINUTE, begun=True).tick_us == NOON + HOUR


def test_missed_ticks_may_be_fired_one_after_the_other() -> None:
    each = Schedule("s", "* * * * *", "k", missed="all", since_us=NOON)

    assert decide(each, NOON + HOUR) == Due(NOON + MINUTE, NOON + MINUTE, NOON + 2 * MINUTE)


def test_a_year_of_missed_minutes_is_not_gone_through_one_by_one() -> None:
    now_us = NOON + YEAR + 30_000_000

    found = decide(EVERY_MINUTE, now_us)

    assert (found.tick_us, found.missed) == (NOON + YEAR, 999)


@pytest.mark.parametrize("when", ["@every 1s", "@hourly", "0 0 * * *", "0 0 1 1 *", "0 0 29 2 *"])
def test_the_newest_of_many_missed_ticks_is_the_last_before_now(when: str) -> None:
    schedule = Schedule("s", when, "k", since_us=NOON - 30 * YEAR)
    now_us = NOON + 12_345_678

    found = decide(schedule, now_us, NOON - 30 * YEAR)

    assert found.tick_us is not None
    assert found.look_us is not None
    assert found.tick_us <= now_us < found.look_us
    assert schedule.ticks().after(found.tick_us) == found.look_us


def test_jitter_is_the_same_for_everybody_and_spreads_schedules() -> None:
    jittered = [Schedule(f"s{n}", "0 * * * *", "k", jitter=timedelta(minutes=10), since_us=NOON) for n in range(50)]

    offsets = [one.fires_us(NOON + HOUR) - NOON - HOUR for one in jittered]

    assert offsets == [one.fires_us(NOON + HOUR) - NOON - HOUR for one in jittered]
    assert all(0 <= offset < 10 * MINUTE for offset in offsets)
    assert len({offset // MINUTE for offset in offsets}) == 10


def test_jitter_delays_the_firing_not_the_tick() -> None:
    schedule = Schedule("s", "0 * * * *", "k", jitter=timedelta(minutes=10), since_us=NOON)
    fires_us = schedule.fires_us(NOON + HOUR)

    assert decide(schedule, fires_us - 1) == Due(None, NOON, fires_us)
    assert decide(schedule, fires_us).tick_us == NOON + HOUR


def test_it_is_kept_as_it_is_said() -> None:
    said = Schedule(
        "nightly",
        "30 2 * * *",
        "reports/ü",
        zone="Europe/Berlin",
        priority=7,
        payload=b"\x00\xff",
        meta={"team": "web"},
        jitter=timedelta(seconds=30),
        missed="skip",
        paused=True,
        since_us=NOON,
    )

    assert Schedule.from_payload("nightly", said.to_payload()) == said


def test_the_key_gets_its_payload_as_it_was_given_and_the_tick_in_its_meta() -> None:
    payload = b'{"already": "JSON", "base64": "eyJ9"}'
    schedule = Schedule.from_payload("s", Schedule("s", "@daily", "k", payload=payload, meta={"a": "b"}).to_payload())

    options = schedule.options(NOON)

    assert options.payload == payload
    assert options.meta == {"a": "b", "scheduled-time": "2026-06-01T12:00:00+00:00"}


def test_the_next_firings_can_be_told() -> None:
    firings = islice(Schedule("s", "0 9 * * MON", "k", zone="Europe/Berlin").firings(NOON), 2)

    assert list(firings) == [datetime(2026, 6, 8, 7, tzinfo=UTC), datetime(2026, 6, 15, 7, tzinfo=UTC)]


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"key": ""}, InvalidKeyError),
        ({"name": "a\n"}, InvalidKeyError),
        ({"when": "0 0 30 2 *"}, InvalidSettingError),
        ({"zone": "Nowhere"}, InvalidSettingError),
        ({"missed": "sometimes"}, InvalidSettingError),
        ({"jitter": timedelta(-1)}, InvalidSettingError),
        ({"jitter": timedelta(days=2)}, InvalidSettingError),
        ({"priority": 2**53}, InvalidOptionsError),
        ({"meta": {"a": "x" * 1020}}, InvalidOptionsError),
    ],
)
def test_what_cannot_be_is_refused_when_it_is_said(said: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        Schedule(**{"name": "s", "when": "@daily", "key": "k", **said})  # type: ignore[arg-type]


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"null", b'{"version": 1}', b"[" * 100_000, b"\xff"])
def test_a_payload_that_is_no_definition_is_an_error_of_ours(payload: bytes) -> None:
    with pytest.raises(InvalidSettingError, match="cannot be read"):
        Schedule.from_payload("s", payload)


def test_a_definition_of_a_later_release_is_left_alone() -> None:
    with pytest.raises(UnsupportedError, match="later release"):
        Schedule.from_payload("s", b'{"version": 2}')


def test_a_definition_with_a_value_of_another_kind_is_read_or_refused_and_raises_nothing_else() -> None:
    read = 0
    for odd in with_odd_values(EVERY_MINUTE.to_payload()):
        try:
            schedule = Schedule.from_payload("s", odd)
        except (InvalidSettingError, UnsupportedError):
            continue
        read += 1
        decide(schedule, NOON + HOUR)
        next(schedule.firings(NOON), None)
    assert 0 < read < 60


@pytest.mark.parametrize("text", ["", "x", "-5", "1.5", "9" * 16, "9" * 30, "9" * 5000, "٣"])
def test_a_last_tick_that_is_no_time_or_beyond_all_times_is_looked_at_once(text: str) -> None:
    last_us = last_tick_us({LAST_TICK: text})

    assert 0 <= last_us <= LATEST_US
    assert decide(EVERY_MINUTE, NOON + MINUTE, max(last_us, NOON)).missed == 0

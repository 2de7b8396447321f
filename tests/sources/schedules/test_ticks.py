"""When a schedule ticks: cron lines, time zones, and the two nights a year on which the clock jumps."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest

from workqueue.clock import from_us, to_us
from workqueue.errors import InvalidSettingError
from workqueue.sources.schedules.ticks import Cron, Ticks, parse_ticks, parse_zone

BERLIN, LORD_HOWE, UTC_ZONE = "Europe/Berlin", "Australia/Lord_Howe", "UTC"


def ticks(when: str, zone: str, after: str, count: int = 4) -> list[str]:
    """The first ticks after a time, in UTC to the minute."""
    start = to_us(datetime.fromisoformat(after))
    found = parse_ticks(when, zone, start)
    return [from_us(us).strftime("%m-%d %H:%M") for us in islice(following(found, start), count)]


def following(found: Ticks, us: int | None) -> list[int]:
    listed: list[int] = []
    while len(listed) < 8 and us is not None:
        us = found.after(us)
        if us is not None:
            listed.append(us)
    return listed


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("*/20 * * * *", ["06-01 00:20", "06-01 00:40", "06-01 01:00", "06-01 01:20"]),
        ("30 2 * * *", ["06-01 02:30", "06-02 02:30", "06-03 02:30", "06-04 02:30"]),
        ("0 9 * * MON-FRI", ["06-01 09:00", "06-02 09:00", "06-03 09:00", "06-04 09:00"]),
        ("0 0 29 2 *", ["02-29 00:00"] * 4),
        ("0 12 13 * FRI", ["06-05 12:00", "06-12 12:00", "06-13 12:00", "06-19 12:00"]),
        ("@hourly", ["06-01 01:00", "06-01 02:00", "06-01 03:00", "06-01 04:00"]),
        ("@daily", ["06-02 00:00", "06-03 00:00", "06-04 00:00", "06-05 00:00"]),
        ("@weekly", ["06-07 00:00", "06-14 00:00", "06-21 00:00", "06-28 00:00"]),
        ("@monthly", ["07-01 00:00", "08-01 00:00", "09-01 00:00", "10-01 00:00"]),
        ("@every 90m", ["06-01 01:30", "06-01 03:00", "06-01 04:30", "06-01 06:00"]),
        ("@every 1h30m", ["06-01 01:30", "06-01 03:00", "06-01 04:30", "06-01 06:00"]),
    ],
)
def test_a_line_ticks_when_it_says(when: str, expected: list[str]) -> None:
    assert ticks(when, UTC_ZONE, "2026-06-01T00:00:00Z") == expected


def test_a_line_is_read_in_its_zone() -> None:
    assert ticks("0 9 * * *", BERLIN, "2026-01-31T00:00:00Z", 1) == ["01-31 08:00"]
    assert ticks("0 9 * * *", BERLIN, "2026-07-31T00:00:00Z", 1) == ["07-31 07:00"]


# Berlin goes from 02:00 to 03:00 (01:00 UTC) on 29 March 2026, and from 03:00 to 02:00 (01:00 UTC) on 25 October.


@pytest.mark.parametrize(
    "when", ["30 2 * * *", "*/20 2 * * *", "0,30 2 * * *", "15 2-2 * * *"], ids=["once", "steps", "list", "range"]
)
def test_what_lies_in_the_hour_that_is_left_out_ticks_once_right_after_the_gap(when: str) -> None:
    first, second = ticks(when, BERLIN, "2026-03-28T23:00:00Z", 2)

    assert first == "03-29 01:00"
    assert second.startswith("03-30")


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("30 2 * * *", ["10-25 00:30", "10-26 01:30"]),
        ("*/20 2 * * *", ["10-25 00:00", "10-25 00:20", "10-25 00:40", "10-26 01:00"]),
        ("0 */2 * * *", ["10-25 00:00", "10-25 03:00"]),
    ],
)
def test_in_the_hour_that_is_repeated_each_time_ticks_once(when: str, expected: list[str]) -> None:
    assert ticks(when, BERLIN, "2026-10-24T22:30:00Z", len(expected)) == expected


def test_a_tick_of_the_first_pass_is_not_repeated_by_who_looks_in_the_second() -> None:
    assert ticks("30 2 * * *", BERLIN, "2026-10-25T01:10:00Z", 1) == ["10-26 01:30"]


def test_a_line_for_every_hour_goes_by_the_time_that_passes() -> None:
    assert ticks("0 * * * *", BERLIN, "2026-03-28T23:30:00Z") == [
        "03-29 00:00",
        "03-29 01:00",
        "03-29 02:00",
        "03-29 03:00",
    ]
    assert ticks("30 * * * *", BERLIN, "2026-10-24T23:45:00Z") == [
        "10-25 00:30",
        "10-25 01:30",
        "10-25 02:30",
        "10-25 03:30",
    ]


def test_a_gap_may_be_half_an_hour() -> None:
    # Lord Howe Island goes from 02:00 to 02:30 (15:30 UTC the day before) on 4 October 2026.
    assert ticks("15 2 * * *", LORD_HOWE, "2026-10-03T00:00:00Z", 2) == ["10-03 15:30", "10-04 15:15"]


def test_an_interval_keeps_its_step_whatever_the_clock_does() -> None:
    assert ticks("@every 12h", BERLIN, "2026-03-28T18:00:00Z", 3) == ["03-29 06:00", "03-29 18:00", "03-30 06:00"]


def test_a_day_that_a_zone_left_out_is_made_up_for_at_its_end() -> None:
    # Samoa went from 29 to 31 December 2011 at 10:00 UTC.
    assert ticks("0 9 30 12 *", "Pacific/Apia", "2011-12-29T00:00:00Z", 1) == ["12-30 10:00"]


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ("0 0 31 2 *", "day-of-month"),
        ("0 0 31 4,6,9,11 *", "day-of-month"),
        ("61 * * * *", "Bad minute"),
        ("* * * *", "five cron fields"),
        ("0 30 2 * * *", "five cron fields"),
        ("@reboot", "five cron fields"),
        ("", "five cron fields"),
        ("@every", "90s or 1h30m"),
        ("@every soon", "90s or 1h30m"),
        ("@every 500ms", "from 1s to 366d"),
        ("@every 0s", "from 1s to 366d"),
        ("@every 10000d", "from 1s to 366d"),
    ],
)
def test_what_never_fires_or_is_no_line_is_refused(when: str, says: str) -> None:
    with pytest.raises(InvalidSettingError, match=says):
        parse_ticks(when, UTC_ZONE, to_us(datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize("zone", ["Berlin", "", "../etc/passwd", "Europe/Berlin\x00"])
def test_a_zone_that_is_none_is_named(zone: str) -> None:
    with pytest.raises(InvalidSettingError, match="no time zone"):
        parse_ticks("@daily", zone, 1)


@pytest.mark.parametrize("line", ["30 2 * * *", "*/7 1-4 * * *", "*/30 * * * *", "0 3 * 3,10 *"])
@pytest.mark.parametrize("night", ["2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z"])
def test_what_was_asked_before_changes_no_answer(line: str, night: str) -> None:
    zone, start = parse_zone(BERLIN), to_us(datetime.fromisoformat(night))
    asked = Cron(line, zone)
    moments = [start + minute * 7_777_777 % 86_400_000_000 for minute in range(0, 30_000, 97)]
    assert [asked.after(us) for us in moments] == [Cron(line, zone).after(us) for us in moments]

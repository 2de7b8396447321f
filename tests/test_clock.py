"""Times as people see them: whatever a store says, showing it does not raise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from workqueue.clock import from_us, to_us


@pytest.mark.parametrize("us", [2**62, -(2**62), 10**40, -(10**40)])
@pytest.mark.parametrize("hours", [-12, 14])
def test_a_time_beyond_the_calendar_is_shown_as_the_nearest_in_every_time_zone(us: int, hours: int) -> None:
    shown = from_us(us).astimezone(timezone(timedelta(hours=hours)))

    assert shown.year == (9999 if us > 0 else 1)


def test_a_time_of_this_century_is_shown_to_the_microsecond() -> None:
    moment = datetime(2026, 11, 27, 3, 4, 5, 678901, tzinfo=UTC)

    assert from_us(to_us(moment)) == moment

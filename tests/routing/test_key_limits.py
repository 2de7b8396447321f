"""Limits of a key: what its meta says over what its route says, and what cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from workqueue import Options
from workqueue.errors import InvalidOptionsError
from workqueue.routing import Limits, with_limits
from workqueue.routing.key_limits import NO_LIMITS, limits_of

MINUTE = timedelta(minutes=1)
NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)
ROUTE = Limits(max_retry=3, max_run_time=MINUTE, deadline=NOON)


@pytest.mark.parametrize(
    ("meta", "limits"),
    [
        ({}, ROUTE),
        ({"who": "me"}, ROUTE),
        ({"max-retry": "0"}, Limits(max_retry=0, max_run_time=MINUTE, deadline=NOON)),
        ({"max-run-time": "1.5"}, Limits(max_retry=3, max_run_time=timedelta(seconds=1.5), deadline=NOON)),
        ({"deadline": "2031-01-31T13:00:00+01:00"}, Limits(3, None, MINUTE, NOON.replace(year=2031))),
    ],
    ids=str,
)
def test_what_a_key_says_wins_over_its_route(meta: dict[str, str], limits: Limits) -> None:
    assert limits_of(ROUTE, meta) == limits


@pytest.mark.parametrize(
    "meta",
    [
        {"max-retry": "many"},
        {"max-retry": "-1"},
        {"max-run-time": "0"},
        {"max-run-time": "nan"},
        {"max-run-time": "1e99"},
        {"deadline": "tomorrow"},
        {"deadline": "2030-01-31T12:00:00"},
    ],
    ids=str,
)
def test_a_limit_that_cannot_be_read_is_refused(meta: dict[str, str]) -> None:
    with pytest.raises(InvalidOptionsError):
        limits_of(NO_LIMITS, meta)


def test_limits_travel_with_a_key_beside_what_is_in_its_meta_already() -> None:
    east = timezone(timedelta(hours=2))
    limits = Limits(max_retry=5, max_run_time=90 * MINUTE, deadline=NOON.astimezone(east))

    options = with_limits(Options(priority=7, meta={"who": "me"}), limits)

    assert options.priority == 7
    assert options.meta["who"] == "me"
    assert limits_of(NO_LIMITS, options.meta) == limits


def test_a_backoff_does_not_travel() -> None:
    with pytest.raises(InvalidOptionsError, match="route"):
        with_limits(Options(), Limits(backoff=lambda attempts: MINUTE))

"""Outcomes on every store: kept under the id of their request, found by it, and forgotten when their time is over."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import timedelta

import pytest

from dispatcher.relay.forgetting import Forgetting
from dispatcher.relay.outcomes import Outcome, Outcomes
from tests.support import backends
from tests.support.odd_json import with_odd_values
from workqueue import Options, open_queue
from workqueue.backends.url import url_beside, url_with
from workqueue.clock import from_us
from workqueue.conformance import Target
from workqueue.errors import InvalidSettingError
from workqueue.fallbacks import with_fallbacks
from workqueue.testing import FakeClock

SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
STORES = [backends.memory, backends.sqlite, backends.redis, backends.gcs]


def outcome(clock: FakeClock, status: int = 200) -> Outcome:
    now_us = clock.wall_us()
    return Outcome("http://b:80", "POST", "/x", status, 1, now_us, now_us, now_us + 86_400_000_000, "f")


async def test_an_outcome_with_a_value_of_another_kind_is_none_and_ends_no_listing() -> None:
    clock = FakeClock()
    async with open_queue("memory://", clock=clock) as queue:
        later = from_us(clock.wall_us()) + DAY
        for number, odd in enumerate(with_odd_values(json.dumps(asdict(outcome(clock))).encode())):
            await queue.queue(f"{number}", Options(not_before=later, payload=odd + b"\nrequest"))
            await Outcomes(queue).read(f"{number}")
        listed = await Outcomes(queue).listing(1000)

    assert all(type(each.until_us) is int and type(each.path) is str for _, each in listed)


@pytest.mark.parametrize("store", STORES, ids=lambda store: str(store.__name__))
async def test_an_outcome_is_kept_for_its_time_and_then_forgotten(
    store: Callable[[], AbstractContextManager[Target]],
) -> None:
    clock = FakeClock()
    with store() as target:
        async with target.open("outcomes", clock=clock, owner="") as opened:
            queue = with_fallbacks(opened)
            outcomes, forgetting = Outcomes(queue), Forgetting(queue)
            await outcomes.keep("b:80/1", outcome(clock), b"request\nbody")
            clock.advance(DAY - SECOND)
            await forgetting.forget_due()
            kept = await outcomes.read("b:80/1"), await outcomes.request("b:80/1"), await outcomes.listing(10)
            clock.advance(2 * SECOND)
            await forgetting.forget_due()
            counts = await queue.counts()
            gone = await outcomes.read("b:80/1")

    assert kept[0] is not None
    assert kept == (kept[0], b"request\nbody", [("b:80/1", kept[0])])
    assert (gone, counts.not_before, counts.queued, counts.in_progress) == (None, 0, 0, 0)


async def test_of_two_deliveries_of_one_request_the_last_is_known_and_kept_longest() -> None:
    clock = FakeClock()
    with backends.memory() as target:
        async with target.open("outcomes", clock=clock, owner="") as opened:
            outcomes = Outcomes(with_fallbacks(opened))
            await outcomes.keep("b:80/1", outcome(clock, 200))
            clock.advance(DAY / 2)
            await outcomes.keep("b:80/1", outcome(clock, 201))
            clock.advance(DAY - SECOND)
            await Forgetting(with_fallbacks(opened)).forget_due()
            found = await outcomes.read("b:80/1")

    assert found is not None
    assert found.status == 201


@pytest.mark.parametrize(
    ("url", "beside"),
    [
        ("sqlite:///relay.db?name=relay", "sqlite:///relay.db?name=relay.outcomes"),
        ("redis://h:6379/0", "redis://h:6379/0?name=default.outcomes"),
        ("redis://h/0?name=r&lease=5s", "redis://h/0?name=r.outcomes&lease=5s"),
        ("gs://bucket", "gs://bucket/outcomes"),
        ("gs://bucket/relay/?lease=5m", "gs://bucket/relay/outcomes?lease=5m"),
    ],
)
def test_outcomes_have_a_place_beside_their_requests(url: str, beside: str) -> None:
    assert url_beside(url, "outcomes") == beside


def test_a_name_that_is_too_long_for_something_beside_it_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match="too long for outcomes beside it"):
        url_beside(f"sqlite:///x.db?name={'n' * 95}", "outcomes")


def test_a_setting_takes_the_place_of_what_the_url_says() -> None:
    assert url_with("sqlite:///x.db?max_payload=1&name=a", "max_payload", 2) == "sqlite:///x.db?max_payload=2&name=a"
    assert url_with("gs://bucket", "max_payload", 2) == "gs://bucket?max_payload=2"

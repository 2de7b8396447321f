"""Lease renewal: an owner finds out that its lease is gone before the store lets somebody else have the key."""

from __future__ import annotations

import asyncio
import threading
import tracemalloc
from collections.abc import Sequence
from datetime import timedelta

import pytest

from workqueue.clock import SystemClock
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.lease import DEFAULT_LEASE, Lease, LeaseRenewer, LeaseTimes, Lost, Renewed
from workqueue.testing import FakeClock

SECOND = timedelta(seconds=1)


class Store:
    """Renews what it is told to, when it can be reached."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.silent_about: set[str] = set()
        self.reachable = True
        self.asked: list[list[str]] = []

    def renew(self, leases: Sequence[Lease], timeout: float) -> Renewed:
        self.asked.append([lease.key for lease in leases])
        self.patience = timeout
        if not self.reachable:
            raise StoreUnavailableError
        spoken_of = [lease for lease in leases if lease.key not in self.silent_about]
        kept = [lease for lease in spoken_of if lease.key not in self.gone]
        return Renewed(kept, [lease for lease in spoken_of if lease.key in self.gone])


def renewing(times: LeaseTimes = DEFAULT_LEASE) -> tuple[FakeClock, Store, LeaseRenewer]:
    clock, store = FakeClock(), Store()
    return clock, store, LeaseRenewer(store.renew, times, clock)


def held(renewer: LeaseRenewer, clock: FakeClock, *keys: str) -> list[Lease]:
    leases = [Lease(key, f"token of {key}") for key in keys]
    for lease in leases:
        renewer.hold(lease, clock.steady_us())
    return leases


def test_all_leases_are_renewed_in_one_batch_every_five_seconds() -> None:
    clock, store, renewer = renewing()
    leases = held(renewer, clock, "a", "b")

    clock.advance(16 * SECOND)

    assert store.asked == [["a", "b"]] * 3
    assert not any(lease.lost.is_set() for lease in leases)


def test_nothing_is_asked_while_nothing_is_held() -> None:
    clock, store, renewer = renewing()
    (lease,) = held(renewer, clock, "a")
    renewer.drop(lease)

    clock.advance(60 * SECOND)

    assert store.asked == []


def test_a_lease_that_another_owner_has_is_lost_and_the_others_are_not() -> None:
    clock, store, renewer = renewing()
    a, b = held(renewer, clock, "a", "b")
    store.gone.add("a")

    clock.advance(6 * SECOND)

    assert (a.lost.is_set(), b.lost.is_set()) == (True, False)


def test_a_store_that_is_down_for_a_while_is_asked_again_at_every_tick() -> None:
    clock, store, renewer = renewing()
    (lease,) = held(renewer, clock, "a")
    store.reachable = False
    clock.advance(12 * SECOND)
    store.reachable = True
    clock.advance(30 * SECOND)

    assert not lease.lost.is_set()
    assert len(store.asked) > 8


def test_a_store_that_stays_down_costs_the_lease_a_tenth_before_it_lapses() -> None:
    clock, store, renewer = renewing()
    (lease,) = held(renewer, clock, "a")
    store.reachable = False

    clock.advance(13 * SECOND)
    assert not lease.lost.is_set()
    clock.advance(1 * SECOND)
    assert lease.lost.is_set()


def test_the_deadline_counts_from_when_the_last_successful_renewal_was_sent() -> None:
    clock, store, renewer = renewing()
    (lease,) = held(renewer, clock, "a")
    clock.advance(5 * SECOND)  # renewed
    store.reachable = False
    clock.advance(13 * SECOND)
    assert not lease.lost.is_set()

    clock.advance(1 * SECOND)

    assert lease.lost.is_set()


def test_a_renewal_is_given_no_more_time_than_the_first_lease_has_left() -> None:
    clock, store, renewer = renewing()
    held(renewer, clock, "a")
    clock.advance(3 * SECOND)
    held(renewer, clock, "b")
    clock.advance(2 * SECOND)

    assert store.asked == [["a", "b"]]
    assert store.patience == pytest.approx(8.5)


def test_a_renewal_that_comes_too_late_is_not_sent() -> None:
    clock, store, renewer = renewing()
    (lease,) = held(renewer, clock, "a")

    clock.freeze(14 * SECOND)

    assert (lease.lost.is_set(), store.asked) == (True, [])


def test_a_renewal_that_is_late_but_in_time_keeps_the_lease() -> None:
    clock, store, renewer = renewing()
    (lease,) = held(renewer, clock, "a")

    clock.freeze(13 * SECOND)
    clock.freeze(13 * SECOND)

    assert (lease.lost.is_set(), len(store.asked)) == (False, 2)


def test_a_lease_of_which_the_store_says_nothing_is_asked_for_again_and_lost_at_its_deadline() -> None:
    clock, store, renewer = renewing()
    silent, renewed, gone = held(renewer, clock, "silent", "renewed", "gone")
    store.silent_about.add("silent")
    store.gone.add("gone")

    clock.advance(5 * SECOND)
    after_one = [lease.lost.is_set() for lease in (silent, renewed, gone)]
    clock.advance(9 * SECOND)

    assert after_one == [False, False, True]
    assert (silent.lost.is_set(), renewed.lost.is_set()) == (True, False)


@pytest.mark.parametrize(("late", "is_lost"), [(13, False), (14, True)])
def test_a_lease_whose_start_is_answered_after_its_deadline_is_lost_before_it_is_used(late: int, is_lost: bool) -> None:
    clock, _, renewer = renewing()
    sent_us = clock.steady_us()
    clock.freeze(late * SECOND)
    lease = Lease("a", "token")

    renewer.hold(lease, sent_us)

    assert lease.lost.is_set() is is_lost


def test_a_lease_that_lapsed_while_its_settle_was_tried_is_not_kept() -> None:
    clock, _, renewer = renewing()
    (lease,) = held(renewer, clock, "a")
    renewer.drop(lease)
    clock.freeze(14 * SECOND)

    renewer.keep(lease)

    assert lease.lost.is_set()


async def hold_one(renewer: LeaseRenewer, clock: FakeClock, key: str = "a") -> Lease:
    return held(renewer, clock, key)[0]


def test_leases_of_an_event_loop_that_was_closed_are_not_renewed_any_more(caplog: pytest.LogCaptureFixture) -> None:
    clock, store, renewer = renewing()
    lease = asyncio.run(hold_one(renewer, clock))

    clock.advance(60 * SECOND)

    assert (lease.lost.is_set(), store.asked) == (True, [])
    assert "lease of key 'a' lost: the event loop that won it has ended" in caplog.text


def test_leases_of_the_next_event_loop_are_renewed() -> None:
    clock, store, renewer = renewing()
    first = asyncio.run(hold_one(renewer, clock))

    async def second() -> Lease:
        lease = Lease("b", "token of b")
        renewer.hold(lease, clock.steady_us() - 1)
        clock.advance(60 * SECOND)
        return lease

    later = asyncio.run(second())

    assert (first.lost.is_set(), later.lost.is_set()) == (True, False)
    assert store.asked[0] == ["b"]


@pytest.mark.parametrize(("stands_still", "is_lost"), [(30, False), (31, True)])
def test_leases_of_an_event_loop_that_stopped_are_renewed_for_two_leases(stands_still: int, is_lost: bool) -> None:
    clock, _, renewer = renewing()
    loop = asyncio.new_event_loop()
    try:
        lease = loop.run_until_complete(hold_one(renewer, clock))
        clock.advance(stands_still * SECOND)
    finally:
        loop.close()

    assert lease.lost.is_set() is is_lost


class LateClock(FakeClock):
    """A clock that a slow answer can move on."""

    late_us = 0

    def steady_us(self) -> int:
        return super().steady_us() + self.late_us


def test_an_answer_that_takes_longer_than_the_lease_does_not_keep_it() -> None:
    clock = LateClock()

    def slow(leases: Sequence[Lease], timeout: float) -> Renewed:
        clock.late_us = 20_000_000
        return Renewed(leases)

    (lease,) = held(LeaseRenewer(slow, DEFAULT_LEASE, clock), clock, "a")
    clock.advance(5 * SECOND)

    assert lease.lost.is_set()


def test_a_renewal_that_was_done_but_not_answered_is_asked_for_again() -> None:
    clock, done = FakeClock(), list[str]()

    def lossy(leases: Sequence[Lease], timeout: float) -> Renewed:
        done.append(leases[0].token)
        if len(done) == 1:
            raise StoreUnavailableError
        return Renewed(leases)

    (lease,) = held(LeaseRenewer(lossy, DEFAULT_LEASE, clock), clock, "a")
    clock.advance(6 * SECOND)

    assert (done, lease.lost.is_set()) == (["token of a"] * 2, False)


def test_a_key_settled_while_its_renewal_is_under_way_is_not_lost() -> None:
    clock = FakeClock()

    def meanwhile(leases: Sequence[Lease], timeout: float) -> Renewed:
        renewer.drop(lease)
        return Renewed((), leases)

    renewer = LeaseRenewer(meanwhile, DEFAULT_LEASE, clock)
    (lease,) = held(renewer, clock, "a")
    clock.advance(6 * SECOND)

    assert not lease.lost.is_set()


def test_a_lease_that_is_held_later_is_renewed_with_the_others() -> None:
    clock, store, renewer = renewing()
    held(renewer, clock, "a")
    clock.advance(4 * SECOND)
    (late,) = held(renewer, clock, "b")

    clock.advance(60 * SECOND)

    assert not late.lost.is_set()
    assert store.asked[-1] == ["a", "b"]


def test_a_renewer_whose_thread_stands_still_for_a_lease_has_stalled() -> None:
    clock, _, renewer = renewing()
    held(renewer, clock, "a")
    started_us = clock.steady_us()

    assert not renewer.stalled(started_us + 15_000_000)
    assert renewer.stalled(started_us + 15_000_001)


def test_closing_stops_renewal_without_losing_anything() -> None:
    clock, store, renewer = renewing()
    (lease,) = held(renewer, clock, "a")
    renewer.close()

    clock.advance(60 * SECOND)

    assert (store.asked, lease.lost.is_set()) == ([], False)


@pytest.mark.parametrize(("lasts", "every"), [(15, 8), (15, 0), (15, -1), (0, 1)])
def test_a_lease_that_could_not_be_renewed_in_time_is_refused(lasts: int, every: int) -> None:
    with pytest.raises(InvalidSettingError, match="at most half"):
        LeaseTimes(lasts * SECOND, every * SECOND)


def test_lost_calls_each_subscriber_once_whenever_it_subscribed() -> None:
    lost, told = Lost(), []
    lost.subscribe(lambda: told.append("early"))
    lost.set()
    lost.set()
    lost.subscribe(lambda: told.append("late"))

    assert (told, lost.is_set()) == (["early", "late"], True)


def test_a_subscriber_that_raises_keeps_nobody_from_being_called(caplog: pytest.LogCaptureFixture) -> None:
    lost, told = Lost(), []
    lost.subscribe(lambda: told.append("first"))
    lost.subscribe([].pop)
    lost.subscribe(lambda: told.append("last"))

    lost.set()

    assert sorted(told) == ["first", "last"]
    assert "IndexError" in caplog.text


def test_lost_can_be_waited_for_in_a_thread() -> None:
    lost = Lost()
    assert not lost.wait(0)
    waiter = threading.Thread(target=lost.wait)
    waiter.start()

    lost.set()

    waiter.join(10)
    assert not waiter.is_alive()


def test_lost_can_be_asked_a_thousand_times_a_second_without_piling_anything_up() -> None:
    lost = Lost()
    tracemalloc.start()
    try:
        for _ in range(1000):
            lost.wait(0)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_a_lease_won_while_the_queue_was_being_closed_is_lost_and_starts_no_renewal() -> None:
    clock, store, renewer = renewing()
    renewer.close()
    (lease,) = held(renewer, clock, "a")

    clock.advance(16 * SECOND)

    assert (lease.lost.is_set(), store.asked) == (True, [])


def test_a_tick_that_raises_does_not_end_the_pump(caplog: pytest.LogCaptureFixture) -> None:
    ticks: list[int] = []
    twice = threading.Event()

    def tick(now_us: int) -> None:
        ticks.append(now_us)
        if len(ticks) == 1:
            raise OSError("no")
        twice.set()

    stop = SystemClock().pump(tick, 0.001)
    assert twice.wait(10)
    stop()
    assert "it is called again" in caplog.text

"""What is known of a target that is down: who may start, who is released, when the next probe is due (pure)."""

from __future__ import annotations

import asyncio

import pytest

from dispatcher.outage import Outage, TargetUnavailableError

S = 1_000_000
DOWN = TargetUnavailableError("down")
BROKE = TargetUnavailableError("broke", "broken")
REFUSED = TargetUnavailableError("502", "refused")


def fail(
    outage: Outage,
    key: str,
    error: TargetUnavailableError = DOWN,
    now_us: int = 0,
    *,
    sent: int | None = None,
    last: bool = False,
) -> bool:
    """A call fails, which began just before unless `sent` says otherwise; returns whether its key is released."""
    return outage.failed(key, error, outage.answers if sent is None else sent, now_us, last=last).is_released


def answer(outage: Outage, key: str = "other", now_us: int = 0) -> None:
    outage.answers += 1
    outage.answered(key, now_us)


def paused(error: TargetUnavailableError = DOWN) -> Outage:
    outage = Outage()
    for number in range(5):
        fail(outage, f"k{number}", error)
    return outage


def probe(outage: Outage, now_us: int, key: str = "probe") -> None:
    assert outage.probe_of([key], now_us) == key
    outage.begins(key, now_us)


def test_four_failures_in_a_row_hold_nothing_and_the_fifth_does() -> None:
    outage = Outage()
    for number in range(4):
        fail(outage, f"k{number}")
    before = outage.starts(10, 0)
    verdict = outage.failed("k4", DOWN, 0, 0, last=False)

    assert (before, outage.starts(10, 0), verdict.began) == (10, 0, True)


def test_an_answer_in_between_starts_the_count_again() -> None:
    outage = Outage()
    for number in range(8):
        fail(outage, f"k{number}")
        if number == 3:
            answer(outage)

    assert outage.starts(10, 0) == 10


def test_one_key_probes_after_a_second_then_after_two_and_so_on_up_to_a_minute() -> None:
    outage, now_us, pauses = paused(), 0, []
    for _ in range(8):
        wait_us = outage.probe_in_us(now_us)
        assert wait_us is not None
        now_us += wait_us
        pauses.append(wait_us // S)
        assert outage.starts(10, now_us - 1) == 0
        assert outage.starts(10, now_us) == 1
        probe(outage, now_us)
        assert outage.starts(10, now_us) == 0
        fail(outage, "probe", now_us=now_us)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]


def test_a_probe_that_is_answered_ends_the_outage_and_says_how_long_it_was() -> None:
    outage = paused()
    probe(outage, S)
    ended = outage.answered("probe", 3 * S)

    assert (ended, outage.starts(10, 3 * S), outage.is_on()) == ((3.0, 5), 10, False)


def test_a_probe_that_ends_without_an_answer_is_followed_by_another() -> None:
    outage = paused()
    probe(outage, S)
    outage.unanswered("another key, whose call was under way before")
    still = outage.starts(10, S)
    outage.unanswered("probe")

    assert (still, outage.starts(10, S)) == (0, 1)


def test_calls_that_were_under_way_when_the_target_went_down_do_not_lengthen_the_pause() -> None:
    outage = paused()
    for number in range(50):
        fail(outage, f"late{number}")

    assert outage.probe_in_us(0) == S


def test_a_call_that_was_never_made_costs_no_attempt_while_the_target_answers_nobody() -> None:
    outage = Outage()

    assert [fail(outage, "a", last=True) for _ in range(9)] == [True] * 9


def test_a_call_that_was_never_made_costs_an_attempt_once_the_target_has_answered_another() -> None:
    outage, released = Outage(), []
    for _ in range(2):
        released += [fail(outage, "a"), fail(outage, "a")]
        answer(outage, "b")
        released.append(fail(outage, "a"))

    assert released == [True, True, False] * 2


def test_a_call_that_broke_is_pardoned_once_until_its_key_is_answered() -> None:
    outage = Outage()
    first = [fail(outage, "poison", BROKE) for _ in range(4)]
    answer(outage, "poison")

    assert (first, fail(outage, "poison", BROKE)) == ([True, False, False, False], True)


def test_a_call_that_broke_is_not_pardoned_in_the_last_attempt_of_its_key() -> None:
    assert not fail(Outage(), "poison", BROKE, last=True)


def test_a_call_that_broke_is_not_pardoned_where_nobody_will_remember_it() -> None:
    assert not fail(Outage(lasting=False), "poison", BROKE)


def test_a_call_that_was_refused_costs_no_attempt_while_the_target_answers_nobody() -> None:
    outage = Outage()
    answer(outage)

    assert [fail(outage, "a", REFUSED, last=True) for _ in range(9)] == [True] * 9


def test_a_call_that_was_refused_costs_an_attempt_if_the_target_answered_another_meanwhile() -> None:
    outage = Outage()
    sent = outage.answers
    answer(outage)

    assert not fail(outage, "a", REFUSED, sent=sent)
    assert outage.starts(10, 0) == 10


def test_refusals_that_count_against_their_keys_are_no_outage() -> None:
    outage = Outage()
    answer(outage)
    for number in range(9):
        fail(outage, f"k{number}", REFUSED, sent=0)

    assert not outage.is_on()


def test_a_refused_probe_is_followed_by_one_with_a_key_that_failed_longer_ago() -> None:
    outage, now_us, probed = paused(REFUSED), 0, []
    for _ in range(6):
        now_us += outage.probe_in_us(now_us) or 0
        key = outage.probe_of([f"k{number}" for number in range(5)], now_us)
        assert key is not None
        outage.begins(key, now_us)
        probed.append(key)
        fail(outage, key, REFUSED, now_us)

    assert probed == ["k0", "k1", "k2", "k3", "k4", "k0"]


def test_of_very_many_released_keys_the_oldest_is_forgotten() -> None:
    outage = Outage()
    for number in range(10_001):
        fail(outage, f"k{number}", BROKE)

    assert [fail(outage, key, BROKE) for key in ("k0", "k10000")] == [True, False]


class Line:
    """A connection that is cut and comes back as a test says, to a target that serves or not."""

    def __init__(self) -> None:
        self.up = asyncio.Event()
        self.serves = False

    @property
    def is_connected(self) -> bool:
        return self.up.is_set()

    async def connected(self) -> None:
        await self.up.wait()

    async def is_serving(self) -> bool:
        return self.serves


def held_on_a_line(error: TargetUnavailableError, now_us: int) -> tuple[Outage, Line]:
    """An outage whose probe at `now_us` failed too, so that the next is due in two seconds."""
    line = Line()
    outage = Outage(line)
    for number in range(5):
        fail(outage, f"k{number}", error)
    probe(outage, now_us)
    fail(outage, "probe", error, now_us)
    return outage, line


@pytest.mark.parametrize(
    ("error", "is_over"), [(DOWN, True), (BROKE, False), (REFUSED, False)], ids=["unsent", "broken", "refused"]
)
def test_a_probe_under_way_for_long_ends_an_outage_of_the_connection_only(
    error: TargetUnavailableError, is_over: bool
) -> None:
    outage = paused(error)
    probe(outage, S)

    assert outage.taken(16 * S - 1) is None
    assert (outage.taken(16 * S) is not None, not outage.is_on()) == (is_over, is_over)


def test_a_probe_that_may_be_what_brings_the_target_down_runs_alone_until_it_is_answered() -> None:
    outage = Outage()
    fail(outage, "k", BROKE)
    for number in range(4):
        fail(outage, f"k{number}")
    probe(outage, S, "k")

    assert outage.taken(60 * S) is None


def test_a_probe_that_waits_for_its_connection_was_not_taken() -> None:
    outage, line = held_on_a_line(DOWN, 10 * S)
    probe(outage, 12 * S)
    before = outage.taken(60 * S)
    line.up.set()

    assert before is None
    assert outage.taken(60 * S) is not None


@pytest.mark.parametrize("error", [DOWN, BROKE], ids=["unsent", "broken"])
async def test_a_connection_that_is_back_is_probed_at_once_but_not_twice_in_a_second(
    error: TargetUnavailableError,
) -> None:
    outage, line = held_on_a_line(error, 10 * S)
    line.up.set()

    assert [outage.probe_in_us(now_us) for now_us in (10 * S, 11 * S - 1, 11 * S)] == [S, 1, 0]


async def test_a_connection_that_was_there_all_the_time_says_nothing_about_a_target_behind_a_proxy() -> None:
    outage, line = held_on_a_line(REFUSED, 10 * S)
    line.up.set()

    assert outage.probe_in_us(11 * S) == S


async def test_a_target_behind_a_proxy_that_says_it_serves_is_probed_and_judged_by_that() -> None:
    outage, line = held_on_a_line(REFUSED, 10 * S)
    await outage.ask(11 * S)
    before = outage.probe_in_us(11 * S)
    line.serves = True
    await outage.ask(12 * S)
    probe(outage, 12 * S)

    assert (before, fail(outage, "probe", REFUSED, 12 * S)) == (S, False)
    assert outage.probe_in_us(12 * S) == 4 * S

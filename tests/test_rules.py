"""The rules, by tables: what an entry looks like after each step."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from workqueue.clock import LATEST_US
from workqueue.errors import InvalidOptionsError
from workqueue.options import Options
from workqueue.rules import (
    BARE,
    DeadLetter,
    Entry,
    Requeue,
    dead_lettered,
    enqueued,
    merge_incoming,
    merge_into_twin,
    redriven,
    released,
    requeued,
    started,
)

NOW = 1_000_000_000
MINUTE_US = 60_000_000
QUEUED = Entry("a", 0, 0, 100, 100)
RUNNING = Entry("a", 0, 3, 100, 50, payload=b"p", meta={"n": "v"})


def entry(**changes: Any) -> Entry:
    return replace(QUEUED, **changes)


def test_an_enqueue_without_options_is_eligible_at_once_with_no_attempts() -> None:
    assert enqueued("a", Options(), NOW) == Entry("a", 0, 0, NOW, NOW)


def test_an_enqueue_takes_everything_from_its_options() -> None:
    options = Options(7, datetime(1970, 1, 1, 0, 30, tzinfo=UTC), True, b"p", {"n": "v"})

    assert enqueued("a", options, NOW) == Entry("a", 7, 0, NOW, NOW, 30 * MINUTE_US, True, b"p", {"n": "v"})


@pytest.mark.parametrize(
    ("existing", "incoming", "expected"),
    [
        ((10, False), (5, False), (5, False)),
        ((10, False), (15, False), (10, False)),
        ((10, False), (0, False), (0, False)),
        ((0, False), (15, False), (0, False)),
        ((10, False), (5, True), (5, True)),
        ((10, False), (15, True), (15, True)),
        ((0, False), (15, True), (15, True)),
        ((10, True), (5, False), (10, True)),
        ((10, True), (15, False), (10, True)),
        ((10, True), (0, False), (10, True)),
        ((10, True), (5, True), (10, True)),
        ((10, True), (15, True), (15, True)),
    ],
)
def test_not_before_and_floor_merge_by_the_table(
    existing: tuple[int, bool], incoming: tuple[int, bool], expected: tuple[int, bool]
) -> None:
    old = entry(not_before_us=existing[0], floor=existing[1])
    new = entry(not_before_us=incoming[0], floor=incoming[1])

    for merged in (merge_incoming(old, new), merge_into_twin(old, new), merge_into_twin(old, new, release=True)):
        assert (merged.not_before_us, merged.floor) == expected


@pytest.mark.parametrize(("old", "new", "expected"), [(2, 5, 5), (5, 2, 5), (-3, -8, -3), (0, 0, 0)])
def test_the_higher_priority_and_the_higher_attempts_win(old: int, new: int, expected: int) -> None:
    merged = merge_incoming(entry(priority=old, attempts=abs(old)), entry(priority=new, attempts=abs(new)))

    assert (merged.priority, merged.attempts) == (expected, max(abs(old), abs(new)))


@pytest.mark.parametrize(
    ("existing", "returning", "release", "expected"),
    [(100, 50, False, 100), (100, 50, True, 50), (50, 100, False, 50), (50, 100, True, 50)],
)
def test_only_a_release_brings_back_an_earlier_place(
    existing: int, returning: int, release: bool, expected: int
) -> None:
    twin, back = entry(queued_us=existing), entry(queued_us=returning)

    assert merge_into_twin(twin, back, release=release).queued_us == expected
    assert merge_incoming(twin, back).queued_us == existing


def test_the_story_begins_with_the_earlier_of_two() -> None:
    for old, new in ((10, 20), (20, 10)):
        assert merge_incoming(entry(first_queued_us=old), entry(first_queued_us=new)).first_queued_us == 10


@pytest.mark.parametrize(
    ("older", "newer", "expected"),
    [(b"o", b"n", b"n"), (b"o", None, b"o"), (None, b"n", b"n"), (b"o", b"", b""), (None, None, None)],
)
def test_the_newest_payload_that_is_set_wins(older: bytes | None, newer: bytes | None, expected: bytes | None) -> None:
    assert merge_incoming(entry(payload=older), entry(payload=newer)).payload == expected
    assert merge_into_twin(entry(payload=newer), entry(payload=older)).payload == expected


def test_the_newest_meta_wins_name_by_name() -> None:
    older, newer = entry(meta={"a": "1", "b": "1"}), entry(meta={"b": "2", "c": "2"})

    assert merge_incoming(older, newer).meta == {"a": "1", "b": "2", "c": "2"}
    assert merge_into_twin(newer, older).meta == {"a": "1", "b": "2", "c": "2"}


def test_a_start_adds_an_attempt_and_clears_not_before_and_floor() -> None:
    waiting = replace(RUNNING, not_before_us=5, floor=True)

    assert started(waiting) == replace(RUNNING, attempts=4)


@pytest.mark.parametrize(
    ("how", "attempts", "wait_us", "floor"),
    [
        (BARE, 3, 0, False),
        (Requeue(delay=timedelta(minutes=1)), 0, MINUTE_US, False),
        (Requeue(delay=timedelta(minutes=1), floor=True), 0, MINUTE_US, True),
        (Requeue(backoff=timedelta(minutes=1)), 3, MINUTE_US, False),
        (Requeue(backoff=timedelta(0)), 3, 0, False),
    ],
)
def test_a_requeue_goes_to_the_back_and_waits_as_asked(how: Requeue, attempts: int, wait_us: int, floor: bool) -> None:
    back = requeued(replace(RUNNING, floor=True), how, NOW)

    not_before_us = NOW + wait_us if wait_us else 0
    assert back == replace(RUNNING, attempts=attempts, queued_us=NOW, not_before_us=not_before_us, floor=floor)


@pytest.mark.parametrize(("attempts", "minutes"), [(1, 0.5), (2, 1), (19, 9.5), (20, 10), (21, 10), (2**31 - 1, 10)])
def test_a_bare_requeue_of_a_high_priority_waits_longer_each_time(attempts: int, minutes: float) -> None:
    back = requeued(replace(RUNNING, priority=1, attempts=attempts), BARE, NOW)

    assert back.not_before_us == NOW + int(minutes * MINUTE_US)


def test_no_requeue_waits_beyond_the_latest_time_there_is() -> None:
    back = requeued(RUNNING, Requeue(delay=timedelta.max), NOW)

    assert back.not_before_us == LATEST_US


def test_a_release_takes_the_attempt_back_and_keeps_the_place() -> None:
    assert released(RUNNING) == replace(RUNNING, attempts=2)


def test_a_dead_letter_is_the_entry_as_it_was_and_why_and_when() -> None:
    assert dead_lettered(RUNNING, "boom", NOW) == DeadLetter(RUNNING, "boom", NOW)


def test_a_redrive_queues_as_new() -> None:
    back = redriven(DeadLetter(RUNNING, "boom", 900), None, NOW)

    assert back == replace(RUNNING, attempts=0, queued_us=NOW, first_queued_us=NOW)


def test_a_redrive_merges_with_what_is_queued_whose_payload_wins() -> None:
    queued = entry(priority=-1, attempts=2, payload=b"new", not_before_us=5, floor=True)

    back = redriven(DeadLetter(RUNNING, "boom", 900), queued, NOW)

    assert back == Entry("a", 0, 0, 100, 100, 5, True, b"new", {"n": "v"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"delay": timedelta(0)},
        {"delay": -timedelta(seconds=1)},
        {"backoff": -timedelta(seconds=1)},
        {"delay": timedelta(1), "backoff": timedelta(1)},
        {"floor": True},
        {"backoff": timedelta(1), "floor": True},
    ],
)
def test_a_requeue_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidOptionsError):
        Requeue(**wrong)

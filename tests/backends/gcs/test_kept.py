"""The kept listing: the order of keys, packed, bounded, and as cheap as promised."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workqueue.backends.gcs.api.objects import Stored
from workqueue.backends.gcs.listing.kept import Kept
from workqueue.backends.gcs.listing.packed import Candidate, pack, unpack
from workqueue.backends.gcs.metadata import NO_TIME, entry_of, priority_text, time_text
from workqueue.options import MAX_PRIORITY

NOW = 1_800_000_000_000_000
KEYS = st.text("ab/~ \x01é€\U0001f389", max_size=12)


def row(key: str, priority: int = 0, queued_us: int = NOW, not_before: str = NO_TIME) -> Candidate:
    found = {
        "priority": priority_text(priority),
        "queued-time": time_text(queued_us),
        "not-before": not_before,
    }
    stored = Stored("", 17, 3, queued_us, 0, found)
    return Candidate(key, stored, entry_of(found, key, queued_us, 0), listed=True)


def drained(kept: Kept) -> list[str]:
    keys = []
    while (record := kept.pop()) is not None:
        keys.append(unpack(record).key)
    return keys


@given(
    KEYS,
    st.integers(-MAX_PRIORITY, MAX_PRIORITY),
    st.dictionaries(st.sampled_from(("not-before", "attempts", "colour", "meta-a")), KEYS),
    st.booleans(),
)
def test_a_key_is_unpacked_as_it_was_packed(key: str, priority: int, metadata: dict[str, str], listed: bool) -> None:
    usual = row(key, queued_us=NOW).stored.metadata
    stored = Stored("", 2**60, 2**31, NOW, 262_144, {**usual, "priority": str(priority), **metadata})
    candidate = Candidate(key, stored, entry_of(stored.metadata, key, NOW, stored.size), listed)
    assert unpack(pack(candidate)) == candidate


@given(st.lists(st.tuples(KEYS, st.integers(-5, 5), st.integers(1, 3)), max_size=40, unique_by=lambda each: each[0]))
def test_keys_come_in_the_order_in_which_they_start(keys: list[tuple[str, int, int]]) -> None:
    kept = Kept(1000)
    rows = [row(key, priority, NOW + queued) for key, priority, queued in keys]
    for start in range(0, len(rows), 7):
        kept.add_page(rows[start : start + 7], NOW + 10, {})
    expected = sorted(keys, key=lambda each: (-each[1], each[2], each[0]))
    assert drained(kept) == [key for key, *_ in expected]


def test_a_key_comes_once_its_time_has_come() -> None:
    kept = Kept(1000)
    kept.add_page([row("late", not_before="2099-01-01T00:00:00Z"), row("now")], NOW, {})
    assert (kept.ready, kept.delayed) == (1, 1)
    assert drained(kept) == ["now"]
    kept.promote(5_000_000_000_000_000)
    assert drained(kept) == ["late"]


def test_a_twin_is_not_started_until_its_key_is_no_longer_in_progress() -> None:
    kept = Kept(1000)
    kept.add_page([row("a"), row("b")], NOW, {"a": None})
    assert drained(kept) == ["b"]
    kept.end_twins({"a": None}, NOW)
    assert drained(kept) == []
    kept.end_twins({}, NOW)
    assert drained(kept) == ["a"]


def test_more_keys_than_are_kept_are_forgotten_from_the_end() -> None:
    kept = Kept(1000)
    for page in range(20):
        kept.add_page([row(f"{page:02}-{number:03}", priority=page % 3) for number in range(200)], NOW, {})
    assert 1000 <= kept.ready <= 1250
    assert kept.forgotten + kept.ready == 4000
    assert {unpack(record).entry.priority for record in itertools.islice(iter(kept.pop, None), 1000)} == {2}


@pytest.mark.parametrize("delayed", [False, True])
def test_a_kept_key_takes_less_than_two_hundred_bytes(delayed: bool) -> None:
    not_before = "2099-01-01T00:00:00Z" if delayed else NO_TIME
    kept = Kept(10**9)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for page in range(4):
        kept.add_page(
            [row(f"customer-{page:05}/{number:09}", not_before=not_before) for number in range(1000)], NOW, {}
        )
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (after - before) / 4_000 < 200


def test_keys_left_to_others_are_taken_from_their_end_and_by_priority() -> None:
    kept = Kept(1000)
    for priority in (1, 2):
        for number in range(3):
            kept.leave(pack(row(f"{priority}{number}", priority)), ahead=1)
    assert [unpack(record).key for record in kept.take_left(2)] == ["21", "22"]
    assert [unpack(record).key for record in kept.take_left(2)] == ["20"]
    assert [unpack(record).key for record in kept.take_left(9)] == ["10", "11", "12"]
    assert kept.take_left(9) == []

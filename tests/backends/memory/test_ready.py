"""The index of eligible keys, against sorting."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from workqueue.backends.memory.ready import ReadyIndex
from workqueue.rules import Entry

ENTRIES = st.builds(
    Entry,
    key=st.sampled_from("abcdefgh"),
    priority=st.integers(-2, 2),
    attempts=st.just(0),
    queued_us=st.integers(1, 9),
    first_queued_us=st.just(1),
    not_before_us=st.integers(0, 12),
)
STEPS = st.lists(st.one_of(ENTRIES, st.sampled_from(("take", "peek", "first", "drop"))), max_size=60)


def in_order(entries: dict[str, Entry]) -> list[Entry]:
    return sorted(entries.values(), key=lambda entry: (-entry.priority, entry.queued_us, entry.key))


def put(ready: ReadyIndex, entries: dict[str, Entry], entry: Entry) -> None:
    """Queue or replace a key, as a store does."""
    if entry.key in entries:
        ready.note_stale()
    entries[entry.key] = replace(entry)  # each object is added once
    ready.add(entries[entry.key])


@given(STEPS)
def test_keys_come_out_in_the_order_of_sorting_whatever_happens_in_between(steps: list[Entry | str]) -> None:
    entries: dict[str, Entry] = {}
    ready = ReadyIndex(entries)
    for step in steps:
        if isinstance(step, Entry):
            put(ready, entries, step)
        elif step == "peek":
            assert ready.peek() == next(iter(in_order(entries)), None)
        elif step == "first":
            assert ready.first(3) == in_order(entries)[:3]
        elif step == "drop" and entries:
            entries.popitem()
            ready.note_stale()
        elif step == "take":
            taken = ready.take(2)
            assert taken == in_order(entries)[:2]
            for each in taken:
                del entries[each.key]
    assert [entry.key for entry in ready.first(99)] == [entry.key for entry in in_order(entries)]


@given(st.lists(ENTRIES, max_size=30), st.integers(0, 30))
def test_the_oldest_is_the_one_that_could_have_been_started_first(added: list[Entry], pops: int) -> None:
    entries: dict[str, Entry] = {}
    ready = ReadyIndex(entries)
    for entry in added:
        put(ready, entries, entry)
    for taken in ready.take(pops):
        del entries[taken.key]

    since = [max(entry.queued_us, entry.not_before_us) for entry in entries.values()]
    assert ready.oldest_us() == min(since, default=None)


def test_stale_references_are_swept() -> None:
    entries: dict[str, Entry] = {}
    ready = ReadyIndex(entries)
    for number in range(10_000):
        put(ready, entries, Entry("a", number % 3, 0, number, 0, not_before_us=number * (number % 2) * 2))

    assert references(ready) < 4_000
    assert ready.take(1) == [entries["a"]]


def references(ready: ReadyIndex) -> int:
    """How many entries the index holds on to; a queue that runs for weeks must not keep all it ever had."""
    lanes = ready._lanes.values()
    return sum(len(lane.in_order) + len(lane.early) + len(lane.late) for lane in lanes) + len(ready._waits)


def test_ever_higher_priorities_leave_no_empty_lanes_behind() -> None:
    entries: dict[str, Entry] = {}
    ready = ReadyIndex(entries)
    for priority in range(1000):
        put(ready, entries, Entry("a", priority, 0, 1, 1))
        assert ready.take(1) == [entries.pop("a")]

    assert len(ready._lanes) <= 2


@given(st.lists(ENTRIES, max_size=30), st.integers(0, 10), st.integers(1, 4))
def test_pages_have_every_live_entry_once_and_in_order(added: list[Entry], drops: int, limit: int) -> None:
    entries: dict[str, Entry] = {}
    ready = ReadyIndex(entries)
    for entry in added:
        put(ready, entries, entry)
    for _ in range(min(drops, len(entries))):
        entries.popitem()
        ready.note_stale()

    paged: list[Entry] = []
    while page := ready.after((paged[-1].priority, paged[-1].queued_us, paged[-1].key) if paged else None, limit):
        assert len(page) <= limit
        paged += page

    assert paged == in_order(entries)

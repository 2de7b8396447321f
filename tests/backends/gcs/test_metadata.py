"""What objects say: what Go writes is read as Go means it, what we write Go can read, and nothing found crashes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.gcs.objects import check_metadata
from tests.fakes.gcs.server import GcsServer
from tests.support.gcs import bucket_queue, emulator, start_all
from workqueue.backends.gcs.metadata import (
    HIGHEST_PRIORITY,
    LOWEST_PRIORITY,
    Stamps,
    changes,
    dead_letter_metadata,
    entry_of,
    in_progress_metadata,
    lease_expiry_us,
    letter_of,
    parse_time,
    priority_text,
    queued_metadata,
    seconds_text,
    time_text,
)
from workqueue.clock import from_us, to_us
from workqueue.errors import InvalidOptionsError
from workqueue.options import MAX_META_BYTES, Options
from workqueue.rules import DeadLetter, Entry
from workqueue.testing import FakeClock

GOLDEN = Path(__file__).parent / "golden"
OBJECTS: dict[str, dict[str, Any]] = json.loads((GOLDEN / "objects.json").read_text(encoding="utf-8"))
CREATED = to_us(datetime(2026, 11, 22, 11, 30, tzinfo=UTC))
NOON = to_us(datetime(2026, 11, 22, 12, tzinfo=UTC))


def moment(us: int) -> str | None:
    """As the golden files write times."""
    return from_us(us).isoformat().replace("+00:00", "Z") if us else None


def facts(entry: Entry, metadata: dict[str, str]) -> dict[str, Any]:
    letter = letter_of(metadata, entry.key, CREATED, 0)
    return {
        "priority": entry.priority,
        "attempts": entry.attempts,
        "not_before": moment(entry.not_before_us),
        "floor": entry.floor,
        "queued": "created" if entry.queued_us == CREATED else moment(entry.queued_us),
        "first_queued": moment(entry.first_queued_us),
        "meta": dict(entry.meta),
        "owner": metadata.get("owner", ""),
        "expires": moment(lease_expiry_us(metadata)),
        "failed": moment(letter.failed_us),
        "error": letter.error,
    }


@pytest.mark.parametrize("golden", OBJECTS.values(), ids=OBJECTS.keys())
def test_an_object_is_read_as_its_writer_meant_it(golden: dict[str, Any]) -> None:
    metadata = golden["metadata"]
    found = facts(entry_of(metadata, "a", CREATED, 0), metadata)
    assert {name: found[name] for name in golden["reads"]} == golden["reads"]


@pytest.mark.parametrize("golden", OBJECTS.values(), ids=OBJECTS.keys())
def test_what_is_read_and_written_back_is_read_the_same_again(golden: dict[str, Any]) -> None:
    before = entry_of(golden["metadata"], "a", CREATED, 0)
    metadata = queued_metadata(before, golden["metadata"])
    assert entry_of(metadata, "a", NOON, 0) == before


@pytest.mark.parametrize(
    ("priority", "text"),
    [
        (0, "00000000"),
        (100, "00000100"),
        (-7, "-0000007"),
        (LOWEST_PRIORITY, "-9999999"),
        (HIGHEST_PRIORITY, "99999999"),
    ],
)
def test_a_priority_is_eight_characters(priority: int, text: str) -> None:
    assert (priority_text(priority), len(text)) == (text, 8)


def test_a_not_before_is_whole_seconds_and_never_early() -> None:
    assert seconds_text(NOON) == "2026-11-22T12:00:00Z"
    assert seconds_text(NOON + 1) == "2026-11-22T12:00:01Z"


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("2026-11-22T12:00:00Z", NOON),
        ("2026-11-22T13:00:00+01:00", NOON),
        ("2026-11-22T12:00:00.000001Z", NOON + 1),
        ("2026-11-22T12:00:00.123456789Z", NOON + 123456),
        ("0001-01-01T00:00:00Z", 0),
        ("2026-11-22T12:00:00", None),
        ("2026-11-22", None),
        ("20261122T120000", None),
        ("noon", None),
        ("", None),
    ],
)
def test_a_time_is_rfc_3339_or_malformed(text: str, us: int | None) -> None:
    assert parse_time(text) == us


ENTRIES = st.builds(
    Entry,
    key=st.just("a"),
    priority=st.integers(LOWEST_PRIORITY, HIGHEST_PRIORITY),
    attempts=st.integers(0, 2**31 - 1),  # what is more is read as this
    queued_us=st.integers(1, 2**53 - 1),
    first_queued_us=st.integers(1, 2**53 - 1),
    not_before_us=st.integers(0, 2**32).map(lambda seconds: seconds * 1_000_000),
    floor=st.just(False),
    payload=st.sampled_from((None, b"")),
    meta=st.dictionaries(st.from_regex(r"[A-Za-z0-9._-]{1,10}", fullmatch=True), st.text(max_size=20), max_size=5),
)


@given(ENTRIES)
def test_an_entry_comes_back_as_it_was(entry: Entry) -> None:
    assert entry_of(queued_metadata(entry, {}), "a", CREATED, 0) == entry


@given(st.dictionaries(st.text(max_size=12), st.text(max_size=30), max_size=8), st.integers(0, 2**53 - 1))
def test_no_metadata_is_too_odd_to_be_read_and_written_back(metadata: dict[str, str], created_us: int) -> None:
    letter = letter_of(metadata, "a", created_us, 0)
    again = dead_letter_metadata(letter, metadata)
    assert letter_of(again, "a", created_us, 0).entry.priority == letter.entry.priority


@given(
    st.dictionaries(st.text("abc", max_size=2), st.text("xy", max_size=2)),
    st.dictionaries(st.text("abc", max_size=2), st.text("xy", max_size=2)),
)
def test_changes_make_one_metadata_of_the_other(before: dict[str, str], after: dict[str, str]) -> None:
    merged = before | changes(before, after)
    assert {name: text for name, text in merged.items() if text is not None} == after


def test_names_of_others_are_carried_along() -> None:
    entry = entry_of({"colour": "red", "priority": "00000001"}, "a", CREATED, 0)
    for metadata in (
        queued_metadata(entry, {"colour": "red"}),
        in_progress_metadata(entry, {"colour": "red"}, "t", "", Stamps("s", "b")),
        dead_letter_metadata(DeadLetter(entry, "e", NOON), {"colour": "red"}),
    ):
        assert metadata["colour"] == "red"


@pytest.mark.parametrize(
    "error", ["x" * 10_000, "é" * 5_000, "\n" * 5_000, "%" * 5_000], ids=["x", "é", "newline", "%"]
)
def test_the_fullest_dead_letter_still_fits_into_an_object(error: str) -> None:
    meta = {f"{number:03}": "" for number in range(MAX_META_BYTES // 3)}
    entry = Entry("a", -5, 2**31, NOON + 1, NOON, 0, False, b"", meta)
    metadata = dead_letter_metadata(DeadLetter(entry, error, NOON), {"last-attempted": "1795348000"})
    check_metadata(metadata)
    assert error.startswith(letter_of(metadata, "a", NOON, 0).error)
    assert len(letter_of(metadata, "a", NOON, 0).error) > 500


@pytest.mark.parametrize("priority", [LOWEST_PRIORITY - 1, HIGHEST_PRIORITY + 1])
async def test_a_priority_that_go_cannot_read_is_refused(server: GcsServer, priority: int) -> None:
    async with bucket_queue(server, None) as queue:
        with pytest.raises(InvalidOptionsError, match="-9999999 to 99999999"):
            await queue.queue("a", Options(priority=priority))


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


async def test_a_life_writes_what_the_golden_file_says(server: GcsServer) -> None:
    """Object by object, all but the tokens; a change here is a change for everybody who shares a bucket."""
    written: list[dict[str, Any]] = []

    def note(step: str) -> None:
        for name, stored in server.store.snapshot("wq").items():
            text = json.dumps(dict(sorted(stored.metadata.items())))
            metadata = json.loads(re.sub(r'"[0-9a-f]{16}-[0-9]+"', '"TOKEN"', text))
            written.append({"after": step, "name": name, "body": stored.body.decode(), "metadata": metadata})

    clock = FakeClock(NOON)
    async with bucket_queue(server, clock, owner="blue") as queue:
        not_before = from_us(NOON + 60_000_001)
        meta = {"traceparent": "00-ab-cd-01", "Odd": "a\nb%"}
        await queue.queue("a", Options(7, not_before, not_before_floor=True, payload=b"p", meta=meta))
        note("enqueue")
        clock.freeze(timedelta(seconds=61))
        (owned,) = await start_all(queue)
        note("start")
        await owned.requeue(backoff=timedelta(seconds=60))
        note("requeue")
        clock.freeze(timedelta(seconds=61))
        (owned,) = await start_all(queue)
        await owned.dead_letter("ValueError: é\n")
        note("dead-letter")
        letter = (await queue.find("a")).dead_letter
        assert letter is not None
        await letter.requeue()
        note("re-drive")

    golden = GOLDEN / "life.json"
    assert written == json.loads(golden.read_text(encoding="utf-8"))


@pytest.mark.parametrize("merges", [False, True], ids=["replaces", "merges"])
async def test_what_is_no_longer_so_is_said_in_words_to_a_store_that_merges_metadata_on_copy(
    server: GcsServer, merges: bool
) -> None:
    server.store.merges_on_copy = merges

    clock = FakeClock(NOON)
    async with bucket_queue(server, clock, owner="blue") as queue, bucket_queue(server, clock) as nobody:
        floor = Options(not_before=from_us(NOON + 1_000_000), not_before_floor=True)
        await queue.queue("a", floor)
        clock.freeze(timedelta(seconds=1))
        (owned,) = await start_all(queue)
        await owned.requeue(backoff=timedelta(seconds=60))
        assert (await queue.get("a")).floor is False
        clock.freeze(timedelta(seconds=60))
        (owned,) = await start_all(nobody)
        assert ((await queue.get("a")).owner, owned.attempts) == ("", 2)
        await owned.requeue(delay=timedelta(seconds=60))
        assert (await queue.get("a")).attempts == 0
        clock.freeze(timedelta(seconds=60))
        (owned,) = await start_all(queue)
        await owned.dead_letter("boom")
        clock.freeze(timedelta(seconds=60))
        letter = (await queue.find("a")).dead_letter
        assert letter is not None
        await letter.requeue()
        assert (await queue.get("a")).attempts == 0
        (owned,) = await start_all(queue)
        assert owned.first_queued_time == from_us(clock.wall_us())


@pytest.mark.parametrize("attempts", ["999999999999999999", "2147483647", "-1"])
async def test_a_key_with_absurd_attempts_is_processed_like_any_other(server: GcsServer, attempts: str) -> None:
    server.store.put("wq", "queued/a", {"attempts": attempts, "priority": "00000001"})

    async with bucket_queue(server, FakeClock()) as queue:
        (owned,) = await start_all(queue)
        assert await owned.requeue()


def test_the_times_of_a_bucket_sort_as_text_within_a_second_of_each_other() -> None:
    """Go compares not-before as text."""
    assert seconds_text(NOON) < seconds_text(NOON + 1_000_000)
    assert time_text(NOON) < time_text(NOON + 1)

"""Objects written by hand into a bucket: whatever their metadata say, the other keys run and all is shown."""

from __future__ import annotations

import random

import pytest

from tests.support.gcs import bucket_queue, emulator
from tests.support.odd_store import look_at_everything, run_what_there_is
from workqueue.testing import FakeClock

GOOD = ("g1", "g2", "g3")
NAMES = [
    *("priority", "attempts", "not-before", "not-before-floor", "lease-expiration", "last-attempted", "failed-time"),
    *("lease-token", "lease-stamp", "attempt-began", "error", "queued-time", "first-queued-time", "payload", "owner"),
    *("meta-a", "meta-", "meta-%ff", "META-é", "unknown"),
]
TEXTS = [
    *("", " ", "x", "true", "-5", "1e9", "9" * 17, "9" * 30, "-" + "9" * 30, "٣", "nan", "inf", "0x10", "+7", "1_0"),
    *("0001-01-01T00:00:00+23:59", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-23:59", "2026-13-01T00:00:00Z"),
    *("1700-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01", "20260101T000000Z", "\u202e\x1b[2J", "%", "%e2%28"),
]
SETTINGS = ["concurrency", "paused", "starts-per-second", "saved", "at"]


def odd_metadata(rng: random.Random, names: list[str]) -> dict[str, str]:
    return {name: rng.choice(TEXTS) for name in rng.sample(names, rng.randrange(1, len(names)))}


@pytest.mark.parametrize("folder", ["queued", "in-progress", "dead-letter"])
async def test_an_object_of_odd_metadata_keeps_no_key_from_running_and_no_operator_from_looking(folder: str) -> None:
    rng, clock = random.Random(9), FakeClock()
    with emulator() as server:
        async with bucket_queue(server, clock) as queue:
            for number in range(8):
                odd, metadata = f"odd-{number}", odd_metadata(rng, NAMES)
                for key in GOOD:
                    await queue.queue(key)
                server.store.put("wq", f"{folder}/{odd}", metadata, rng.choice([b"", b"payload"]))
                await look_at_everything(queue, odd)
                assert await run_what_there_is(queue, clock, odd) >= set(GOOD), metadata


async def test_settings_of_odd_metadata_keep_no_operator_from_looking_and_no_dispatcher_from_going_on() -> None:
    rng, clock = random.Random(9), FakeClock()
    with emulator() as server:
        async with bucket_queue(server, clock) as queue:
            for _ in range(8):
                for name in ("in-progress-settings", "in-progress-starts"):
                    server.store.put("wq", name, odd_metadata(rng, SETTINGS))
                await look_at_everything(queue)
                await run_what_there_is(queue, clock, "odd")

            server.store.put("wq", "in-progress-settings", {"concurrency": "x", "starts-per-second": "nan"})
            assert await run_what_there_is(queue, clock, "odd") == {"odd"}

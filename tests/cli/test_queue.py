from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.programs import run
from workqueue import Options, open_queue
from workqueue.errors import StoreUnavailableError
from workqueue.optional import LeaseRequest
from workqueue.programs.settings import OutputFlags
from workqueue.programs.sweep import sweep
from workqueue.sweeping import Act
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/workqueue.db?name=builds"


async def configuration(url: str) -> Configuration:
    async with open_queue(url) as queue:
        return await queue.configuration()


def test_stats_count_the_keys_by_where_they_are(url: str) -> None:
    run(url, "enqueue", "a", "b")
    run(url, "enqueue", "later", "--delay", "1h")

    stats = run(url, "stats", "--json").json

    assert (stats["queue"], stats["queued"], stats["not_before"], stats["in_progress"]) == ("builds", 2, 1, 0)
    assert stats["configuration"] == {"concurrency": None, "paused": False, "starts_per_second": None}
    assert "queued             2" in run(url, "stats").out


HOSTILE = "evil\x1b[2J\u202e\nqueued  99"


def test_text_from_the_store_is_shown_harmless_by_every_command(url: str) -> None:
    async def fill() -> None:
        async with open_queue(url, owner=HOSTILE) as queue:
            for key in ("running", "dead"):
                await queue.queue(key, Options(meta={"m": HOSTILE}))
            started = (await queue.lease(LeaseRequest(limit=2, concurrency=2))).started
            assert await next(owned for owned in started if owned.key == "dead").dead_letter(HOSTILE)
            next(owned for owned in started if owned.key == "running").abandon()

    asyncio.run(fill())
    for command in (["stats"], ["ls"], ["get", "running"], ["get", "dead"], ["dead-letters", "ls"]):
        shown = run(url, *command).out
        assert r"evil\x1b[2J\u202e\nqueued  99" in shown, command
        assert not set(shown) & {"\x1b", "\u202e"}


def test_a_paused_queue_starts_nothing_until_it_is_resumed(url: str) -> None:
    async def started() -> int:
        async with open_queue(url) as queue:
            return len((await queue.lease(LeaseRequest(limit=1, concurrency=1))).started)

    run(url, "enqueue", "k")

    assert run(url, "pause", "--json").json["paused"] is True
    assert asyncio.run(started()) == 0
    assert run(url, "resume", "--json").json["paused"] is False
    assert asyncio.run(started()) == 1


def test_settings_not_named_stay_as_they_are(url: str) -> None:
    run(url, "configure", "--concurrency", "5", "--starts-per-second", "2.5")
    run(url, "pause")
    run(url, "configure", "--clear", "concurrency")

    assert asyncio.run(configuration(url)) == Configuration(None, True, 2.5)
    assert run(url, "configure").out.splitlines()[0].split() == ["paused", "yes"]


def dead(url: str, **errors: str) -> None:
    async def arrange() -> None:
        async with open_queue(url) as queue:
            for key, error in errors.items():
                await queue.queue(key, Options(priority=1))
                [owned] = (await queue.lease(LeaseRequest(limit=1, concurrency=1))).started
                await owned.dead_letter(error)

    asyncio.run(arrange())


def test_dead_letters_are_listed_by_what_is_asked_for(url: str) -> None:
    dead(url, build_1="KeyError: x", build_2="ValueError: y", test_1="KeyError: z")

    def listed(*filters: str) -> set[str]:
        return {row["key"] for row in run(url, "dead-letters", "ls", "--json", *filters).json["dead_letters"]}

    assert listed() == {"build_1", "build_2", "test_1"}
    assert listed("--prefix", "build", "--error", "KeyError") == {"build_1"}
    assert listed("--older-than", "1h") == set()
    assert listed("--newer-than", "1h", "--prefix", "test") == {"test_1"}
    assert len(listed("--limit", "2")) == 2


def test_redriven_keys_are_queued_with_attempts_0(url: str) -> None:
    dead(url, a="KeyError: x", b="KeyError: y")

    ended = run(url, "dead-letters", "redrive", "a", "nobody", "--json")

    assert (ended.code, ended.json) == (1, {"redriven": ["a"], "failed": {"nobody": "it is not dead-lettered"}})
    state = run(url, "get", "a", "--json").json
    assert (state["status"], state["attempts"], state["priority"]) == ("queued", 0, 1)
    assert run(url, "get", "b", "--json").json["status"] == "dead-lettered"


def test_a_dry_run_lists_what_is_meant_and_changes_nothing(url: str) -> None:
    dead(url, a="KeyError: x", b="ValueError: y")

    ended = run(url, "dead-letters", "drop", "--error", "KeyError", "--dry-run", "--json")

    assert [row["key"] for row in ended.json["dead_letters"]] == ["a"]
    assert run(url, "stats", "--json").json["dead_lettered"] == 2


def test_more_dead_letters_than_fit_a_page_are_all_redriven(url: str) -> None:
    dead(url, **{f"key_{number}": "KeyError: x" for number in range(250)})

    assert run(url, "dead-letters", "redrive", "--all").out == "redriven 250\n"

    stats = run(url, "stats", "--json").json
    assert (stats["queued"], stats["dead_lettered"]) == (250, 0)


def test_a_sweep_keeps_to_its_rate() -> None:
    async def scenario() -> list[int]:
        clock, done = FakeClock(), []
        sweeping = asyncio.create_task(sweep(_acts(lambda: done.append(1)), rate=1.0, clock=clock))
        counts = []
        for _ in range(3):
            for _ in range(20):  # let everything happen that can without the clock
                await asyncio.sleep(0)
            counts.append(len(done))
            clock.advance(timedelta(seconds=1))
        await sweeping
        return counts

    assert asyncio.run(scenario()) == [1, 2, 3]


def test_a_sweep_that_the_store_ends_tells_what_was_done_first(capsys: pytest.CaptureFixture[str]) -> None:
    calls = iter(["", StoreUnavailableError("gone"), ""])

    def act() -> None:
        if isinstance(result := next(calls), Exception):
            raise result

    report = asyncio.run(sweep(_acts(act), rate=1e6))

    with pytest.raises(StoreUnavailableError):
        report.show("dropped", OutputFlags(json=True))
    assert '"dropped": ["key-0"' in capsys.readouterr().out


async def _acts(does: Callable[[], object]) -> AsyncIterator[tuple[str, Act]]:
    async def act() -> str:
        does()
        return ""

    for number in range(3):
        yield f"key-{number}", act


def test_all_dead_letters_can_be_dropped_at_a_rate(url: str) -> None:
    dead(url, a="KeyError: x", b="ValueError: y", c="ValueError: z")

    ended = run(url, "dead-letters", "drop", "--all", "--rate", "1000/s")

    assert (ended.code, ended.out) == (0, "dropped 3\n")
    assert run(url, "dead-letters", "ls").out == "there are no dead letters\n"

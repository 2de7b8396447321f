"""The parts of `redis_queue` that need dispatchers in processes of their own: saturation, a crash, a restart."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders.journal import AGAIN, ENDED, Entry, read
from benchmarks.spent import Count, cores_idle, count, saturation, shares
from tests.fakes.redis_server import RedisServer
from workqueue import Options, open_queue

__all__ = ["Row", "crash", "restart", "server_cpu", "several"]

KEYS = 60_000
CRASH_KEYS, CRASH_PAUSE_SECONDS, LEASE_SECONDS = 1000, 0.02, 5
PATIENCE_SECONDS = 60.0
_PLAIN = Options()


@dataclass(frozen=True)
class Row:
    """A line of the table; `is_met` is None where nothing is asked for but a figure."""

    what: str
    measured: str
    asked: str = ""
    is_met: bool | None = None


def server_cpu(server: RedisServer) -> float:
    """Seconds of CPU that the server's one busy thread has used."""
    return count(server.pid).ran


@contextmanager
def dispatching(
    url: str, journals: Sequence[Path], limit: int, pause: float = 0.0
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A dispatcher process for each journal, in which it writes down what it runs; ended at the end."""
    started = [dispatcher(url, journal, limit, pause) for journal in journals]
    try:
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(PATIENCE_SECONDS)


def dispatcher(url: str, journal: Path, limit: int, pause: float) -> subprocess.Popen[bytes]:
    base, _, settings = url.partition("?")
    env = {
        **os.environ,
        "BENCHMARK_REDIS": base,
        "BENCHMARK_SETTINGS": f"?{settings}",
        "BENCHMARK_JOURNAL": str(journal),
        "BENCHMARK_LIMIT": str(limit),
        "BENCHMARK_PAUSE": str(pause),
    }
    command = [sys.executable, "-m", "benchmarks.contenders.drive", "ours", "work"]
    with journal.with_suffix(".output").open("ab") as output:
        return subprocess.Popen(command, env=env, stdout=output, stderr=output)


async def fill(url: str, count: int) -> None:
    async with open_queue(url) as queue:
        await queue.queue_many([(f"key-{number:020}", _PLAIN) for number in range(count)])


def written(journals: Sequence[Path]) -> int:
    """How many entries they have by now."""
    return sum(journal.stat().st_size for journal in journals if journal.exists()) // 16


def wait_until(journals: Sequence[Path], count: int) -> None:
    """Return once there are so many entries."""
    until = time.monotonic() + PATIENCE_SECONDS
    while written(journals) < count:
        if time.monotonic() > until:
            said = [journal.with_suffix(".output").read_text()[-1000:] for journal in journals]
            raise TimeoutError("\n".join([f"fewer than {count} journal entries in {PATIENCE_SECONDS:.0f} s", *said]))
        time.sleep(0.01)


def wait_for(journals: Sequence[Path], count: int) -> list[Entry]:
    """All entries of these journals in the order of time, once there are so many."""
    wait_until(journals, count)
    return sorted((entry for journal in journals for entry in read(journal)), key=lambda entry: entry[1])


def several(server: RedisServer, folder: Path) -> list[Row]:
    """One, two and four dispatcher processes on one Redis, which has a core of its own; they share the others."""
    rows = []
    for processes in (1, 2, 4):
        url = server.url(f"several-{processes}")
        asyncio.run(fill(url, KEYS))
        journals = [folder / f"several-{processes}-{number}" for number in range(processes)]
        with dispatching(url, journals, limit=100 * processes) as dispatchers:
            rows += saturated(server, journals, [process.pid for process in dispatchers])
    return rows


def saturated(server: RedisServer, journals: Sequence[Path], dispatchers: Sequence[int]) -> list[Row]:
    """What Redis and these dispatchers do with their time while they drain the last nine keys in ten."""
    cores = os.sched_getaffinity(0)
    wait_until(journals, KEYS // 10)
    drained, idle, redis, theirs = written(journals), cores_idle(cores), [count(server.pid)], counts(dispatchers)
    wait_until(journals, KEYS)
    seconds = time.monotonic() - redis[0].at
    rate, idle = (KEYS - drained) / seconds, (cores_idle(cores) - idle) / seconds / len(cores)
    of_redis, of_each = shares(redis, [count(server.pid)]), shares(theirs, counts(dispatchers))
    told = saturation(rate, of_redis, of_each.computes * len(dispatchers), idle)
    return [
        Row(f"dispatcher processes: {len(dispatchers)}", told, "Redis 80 %, or what is full"),
        Row("    Redis, asleep while nothing is asked", str(of_redis)),
        Row("    each of them, asleep until Redis answers", str(of_each)),
    ]


def counts(pids: Sequence[int]) -> list[Count]:
    return [count(pid) for pid in pids]


def crash(server: RedisServer, folder: Path) -> list[Row]:
    """kill -9 of the busier of two dispatchers in mid-drain, default settings but for the lease."""
    url, journals = server.url("crash", lease=f"{LEASE_SECONDS}s"), [folder / "crash-0", folder / "crash-1"]
    asyncio.run(fill(url, CRASH_KEYS))
    with dispatching(url, journals, limit=40, pause=CRASH_PAUSE_SECONDS) as dispatchers:
        wait_for(journals, CRASH_KEYS)  # begun or ended, so about half
        victim = max((0, 1), key=lambda number: in_flight(journals[number]))
        dispatchers[victim].kill()
        killed_ns = time.monotonic_ns()
        while len(done(written := wait_for(journals, CRASH_KEYS))) < CRASH_KEYS:
            if time.monotonic_ns() - killed_ns > PATIENCE_SECONDS * 1e9:
                break
            time.sleep(0.01)
    seconds, lost = (written[-1][1] - killed_ns) / 1e9, CRASH_KEYS - len(done(written))
    told = f"{lost} lost, all done {seconds:.1f} s later, {len(attempts(written)) - CRASH_KEYS} run again"
    is_met = not lost and seconds <= LEASE_SECONDS + 1
    return [Row(f"kill -9 of one of two, lease {LEASE_SECONDS} s", told, f"0 lost, ≤ {LEASE_SECONDS + 1} s", is_met)]


def in_flight(journal: Path) -> int:
    return len(attempts(read(journal))) - len(done(read(journal)))


def restart(server: RedisServer, folder: Path) -> list[Row]:
    """SIGTERM of the only dispatcher in mid-drain, and a new one as soon as it is gone."""
    url, journals = server.url("restart", lease=f"{LEASE_SECONDS}s"), [folder / "restart"]
    asyncio.run(fill(url, CRASH_KEYS))
    with dispatching(url, journals, limit=20, pause=CRASH_PAUSE_SECONDS) as dispatchers:
        wait_for(journals, CRASH_KEYS)
        dispatchers[0].send_signal(signal.SIGTERM)
        told_ns = time.monotonic_ns()
        dispatchers[0].wait(PATIENCE_SECONDS)
        gone_ns = time.monotonic_ns()
        dispatchers.append(dispatcher(url, journals[0], 20, CRASH_PAUSE_SECONDS))
        written = wait_for(journals, 2 * CRASH_KEYS)
    next_ns = min(at for number, at in written if at > gone_ns and not number & ENDED)
    spent = sum(bool(number & AGAIN) for number in attempts(written))
    gone, started = (gone_ns - told_ns) / 1e9, (next_ns - gone_ns) / 1e9
    told = f"gone after {gone:.2f} s, the next one starts keys {started:.2f} s later, {spent} attempts spent"
    return [Row("SIGTERM and a restart in mid-drain", told, "≤ 1 s, 0 spent", gone + started <= 1 and not spent)]


def attempts(written: list[Entry]) -> list[int]:
    return [number for number, _ in written if not number & ENDED]


def done(written: list[Entry]) -> set[int]:
    return {number for number, _ in written if number & ENDED}

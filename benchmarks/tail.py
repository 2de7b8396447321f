"""Where the time from enqueue to start goes on an idle Redis queue, and what the slowest one in a hundred waited for.

`python -m benchmarks.tail [--keys N]`, half a minute: what `benchmarks.compare` measures as latency of ours, traced by
`contenders.traced`. Redis has a core of its own; producer and dispatcher share the other, as there. Prints every part
of the way from the call to the callback, for all keys and for the slowest in a hundred, what else ran meanwhile, and
how long Redis worked on each script. A process `waited for the core` when it could run and the kernel let another one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from benchmarks.compare_measures import Bench, Contender, latencies
from benchmarks.contenders.drive import WARM_UP
from benchmarks.contenders.notes import Kind, Note, read
from benchmarks.tail_parts import Way, beside_table, parts_table, ways
from tests.fakes.redis_server import RedisServer
from workqueue.backends.redis.scripts import script

TRACED = Contender("ours, traced", "traced", (), 0, 0)
SCRIPTS = ("enqueue", "lease", "settle", "wait")
NOTED_FROM_US = 10  # a script notes each of its commands, too, that is not shorter: all of them cost more than itself


def trace(keys: int) -> tuple[dict[str, float], list[Way], Table]:
    """p50 and p99 as `compare` has them, the way of each key, and the time of each script."""
    with (
        RedisServer(slowlog_log_slower_than=NOTED_FROM_US, slowlog_max_len=10 * keys) as server,
        tempfile.TemporaryDirectory() as at,
    ):
        os.environ |= {"BENCHMARK_NOTES": str(notes := Path(at, "notes")), "BENCHMARK_REDIS_PID": str(server.pid)}
        notes.mkdir()
        found = latencies(Bench(server, Path(at)), TRACED, keys)
        noted = [read(path) for path in notes.iterdir()]
        return found, _all_ways(noted), _scripts_table(server)


def _all_ways(noted: list[list[Note]]) -> list[Way]:
    producer = next(notes for notes in noted if any(note.kind == Kind.CALLED for note in notes))
    dispatcher = next(notes for notes in noted if any(note.kind == Kind.STARTED for note in notes))
    return [way for way in ways(producer, dispatcher) if way.number >= WARM_UP]


def _scripts_table(server: RedisServer) -> Table:
    """How long Redis worked on each script, without reading it and sending its answer."""
    took: dict[str, list[int]] = defaultdict(list)
    with server.connected() as client:
        for entry in client.slowlog_get(-1):
            took[b" ".join(entry["command"].split()[1:2]).decode()].append(entry["duration"])
    table = Table("µs in Redis", "calls", "p50", "p99")
    for name in SCRIPTS:
        all_took = sorted(took[script(name).sha])
        table.add_row(name, str(len(all_took)), f"{median(all_took):.0f}", f"{all_took[int(len(all_took) * 0.99)]}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=2000, help="how many, one every 10 ms or so; at most 8,000")
    found, traced, scripts = trace(parser.parse_args().keys)
    console = Console(width=200)
    console.print(
        ", ".join(f"{what.removesuffix(' ms')} {value:.3f} ms" for what, value in found.items()), "with the tracing"
    )
    for table in (parts_table(traced), beside_table(traced), scripts):
        console.print(table)


if __name__ == "__main__":
    main()

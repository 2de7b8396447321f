"""Redis under fire: dispatchers and Redis are killed while duplicates pour in; an independent witness says what broke.

`python -m benchmarks.soak [--keys N] [--topology single|sentinel|cluster] [--wait-replicas N]`. Four dispatchers, each
a process, share one limit; one producer enqueues every key and nine duplicates of each. On one server or a cluster
Redis keeps an AOF that is always synced, and is killed once; behind Sentinel the master is killed for good. Ends with a
table, and 1 if a promise was broken. Behind Sentinel replication is asynchronous: the table says what was lost and
doubled, and only two settles for one lease, or a lost key in spite of `--wait-replicas`, count as broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.soak_witness import verdict
from tests.fakes.redis_server import RedisCluster, RedisSentinels, RedisServer
from workqueue import open_queue

LINES = 30
READY_SECONDS = 30.0
_AOF = {"appendonly": "yes", "appendfsync": "always"}


@dataclass
class Dispatching:
    """One dispatcher process, and where it prints."""

    process: subprocess.Popen[bytes]
    output: Path

    def ended_well(self) -> bool:
        """Whether it exited with 0 once it is over; if not, says what it printed."""
        code = self.process.wait()
        if code:
            printed = self.output.read_text(errors="replace").splitlines()[-LINES:]
            print(f"dispatcher {self.process.pid} ended with {code}:", *printed, sep="\n  ", file=sys.stderr)
        return code == 0


@dataclass
class Fleet:
    """The dispatcher processes; one that is killed, or ends by itself, is replaced."""

    arguments: list[str]
    size: int
    workspace: Path
    processes: list[Dispatching] = field(default_factory=list)
    kills: int = 0
    ended_by_themselves: int = 0

    def fill(self) -> None:
        while len(self.processes) < self.size:
            output = self.workspace / f"output-{self.kills + self.ended_by_themselves}-{len(self.processes)}"
            with output.open("wb") as sink:
                self.processes.append(Dispatching(subprocess.Popen(self.arguments, stdout=sink, stderr=sink), output))

    def kill_one(self) -> None:
        one = self.processes.pop(random.randrange(len(self.processes)))
        one.process.kill()
        one.process.wait()  # a zombie would still look alive to the witness
        self.kills += 1
        self.fill()

    def replace_ended(self) -> None:
        """Nobody should end before SIGTERM: who did is reported and replaced."""
        for one in [one for one in self.processes if one.process.poll() is not None]:
            self.processes.remove(one)
            self.ended_by_themselves += 1
            one.ended_well()
        self.fill()

    def end(self) -> int:
        """SIGTERM to all, once each is ready for it; returns how many ended badly."""
        until = time.monotonic() + READY_SECONDS
        while not all(self._is_ready(one) for one in self.processes) and time.monotonic() < until:
            time.sleep(0.05)
        for one in self.processes:
            one.process.terminate()
        return sum(not one.ended_well() for one in self.processes)

    def _is_ready(self, one: Dispatching) -> bool:
        """A SIGTERM before it listens for one would just end it."""
        return (self.workspace / f"ready-{one.process.pid}").exists()


@contextmanager
def redis(topology: str, wait_replicas: int) -> Iterator[tuple[str, RedisServer | RedisSentinels | RedisCluster]]:
    """A Redis of that kind, and the URL of a queue on it."""
    settings = {"lease": "5s", "timeout": "4s", "wait_replicas": wait_replicas}
    if topology == "sentinel":
        with RedisSentinels(replicas=2) as sentinels:
            yield sentinels.url("soak", **settings), sentinels
    elif topology == "cluster":
        with RedisCluster(**_AOF) as cluster:
            yield cluster.url("soak", **settings), cluster
    else:
        with RedisServer(**_AOF) as server:
            yield server.url("soak", **settings), server


def kill_redis(running: RedisServer | RedisSentinels | RedisCluster) -> None:
    """Kill the server of the queue; bring it back, unless somebody takes its place."""
    if isinstance(running, RedisSentinels):
        running.fail_over()
        return
    server = running.node_of("{wq:soak}") if isinstance(running, RedisCluster) else running
    server.kill()
    time.sleep(0.5)
    server.start()


async def is_drained(url: str) -> bool:
    async with open_queue(url) as queue:
        counts = await queue.counts()
    return counts.queued + counts.not_before + counts.twins + counts.in_progress == 0


def soak(arguments: argparse.Namespace, workspace: Path) -> dict[str, object]:
    """One soak; returns the rows of its table."""
    began = time.monotonic()
    with redis(arguments.topology, arguments.wait_replicas) as (url, running):
        command = [sys.executable, "-m", "benchmarks.soak_roles"]
        producer = subprocess.Popen(
            [*command, "produce", url, str(workspace), str(arguments.keys), str(arguments.duplicates)]
        )
        dispatch = [*command, "dispatch", url, str(workspace), str(arguments.limit)]
        fleet = Fleet(dispatch, arguments.dispatchers, workspace)
        fleet.fill()
        next_kill, killed_redis = began + 2.0, False
        while producer.poll() is None or not asyncio.run(is_drained(url)):
            time.sleep(0.2)
            fleet.replace_ended()
            if time.monotonic() > next_kill:
                fleet.kill_one()
                next_kill = time.monotonic() + random.uniform(1.0, 4.0)
            if (
                not killed_redis
                and sum(path.stat().st_size for path in workspace.glob("runs-*")) > 16 * arguments.keys // 3
            ):
                kill_redis(running)
                killed_redis = True
        ended_badly = fleet.end()
    seconds = time.monotonic() - began
    rows: dict[str, object] = {**verdict(workspace)}
    rows |= {"dispatchers killed": fleet.kills, "Redis killed": int(killed_redis)}
    rows |= {"dispatchers that ended by themselves": fleet.ended_by_themselves}
    rows |= {"dispatchers that ended badly at SIGTERM": ended_badly, "seconds": round(seconds, 1)}
    return rows


def broken(rows: dict[str, object], arguments: argparse.Namespace) -> list[str]:
    """The promises that did not hold."""
    promises = [
        "leases settled twice",
        "dispatchers that ended by themselves",
        "dispatchers that ended badly at SIGTERM",
    ]
    if arguments.topology != "sentinel":
        promises += ["accepted but never run after", "run by two owners at once", "begun beyond the limit"]
    elif arguments.wait_replicas:
        promises.append("accepted but never run after")
    return [promise for promise in promises if rows[promise]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=200_000, help="different keys")
    parser.add_argument("--duplicates", type=float, default=0.9, help="the part of the enqueues that are duplicates")
    parser.add_argument("--dispatchers", type=int, default=4)
    parser.add_argument("--limit", type=int, default=40, help="attempts at once, over all dispatchers")
    parser.add_argument("--topology", choices=("single", "sentinel", "cluster"), default="single")
    parser.add_argument("--wait-replicas", type=int, default=0)
    arguments = parser.parse_args()
    workspace = Path(tempfile.mkdtemp(prefix="workqueue-soak-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        rows = soak(arguments, workspace)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    for name, value in rows.items():
        print(f"{name:42}{value:>12}")
    failed = broken(rows, arguments)
    print("broken: " + ", ".join(failed) if failed else "every promise held")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()

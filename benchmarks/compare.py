"""Ours beside seven Python task queues on one Redis in one run: `python -m benchmarks.compare [--rounds N] [--only …]`.

Installs each into a virtual environment of its own (in the user's cache folder), pins Redis to one core and whoever is
measured to another, and goes round them `--rounds` times, so that a machine that slows down slows all of them. Prints a
table of medians, and writes `compare.json` and `compare.png` to `--output`.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.contenders.journal import ENDED, Entry, read
from tests.fakes.redis_server import RedisServer

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "workqueue-benchmarks"
PATIENCE_SECONDS = 60
LATENCIES = 200
CRASH_KEYS, CRASH_AFTER, CRASH_PAUSE = 1000, 300, "0.02"


@dataclass(frozen=True)
class Contender:
    """One side: its module in `contenders`, what to install for it, and how many it can take in some seconds."""

    name: str
    module: str
    packages: tuple[str, ...]
    enqueues: int
    drains: int
    has_duplicates: bool = False

    @property
    def python(self) -> str:
        """The interpreter of its environment, made if need be."""
        if not self.packages:
            return sys.executable
        return environment(self.packages)


CONTENDERS = [
    Contender("ours", "ours", (), 100_000, 50_000, has_duplicates=True),
    Contender("huey", "huey_sync", ("huey", "redis", "hiredis"), 20_000, 20_000),
    Contender("taskiq stream", "taskiq_stream", ("taskiq", "taskiq-redis", "hiredis", "uvloop"), 10_000, 10_000),
    Contender("taskiq list", "taskiq_list", ("taskiq", "taskiq-redis", "hiredis", "uvloop"), 10_000, 10_000),
    Contender("SAQ", "saq_async", ("saq[redis]", "hiredis", "uvloop"), 10_000, 10_000, has_duplicates=True),
    Contender("arq", "arq_async", ("arq", "hiredis", "uvloop"), 6_000, 10_000, has_duplicates=True),
    Contender("Dramatiq", "dramatiq_sync", ("dramatiq[redis]", "hiredis"), 8_000, 6_000),
    Contender("Celery", "celery_sync", ("celery[redis]", "hiredis"), 5_000, 5_000),
    Contender("RQ", "rq_sync", ("rq", "hiredis"), 10_000, 2_000),
]


def environment(packages: tuple[str, ...]) -> str:
    """The interpreter of a virtual environment with these packages, installed once."""
    folder = CACHE / "-".join(package.partition("[")[0] for package in packages)
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "installed").touch()
    return str(python)


class Bench:
    """One Redis on one core, and contenders run against it on the other."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(server.pid, {cores[0]})
        self._core = cores[-1]
        self._journals = 0

    def run(self, contender: Contender, role: str, count: int) -> dict[str, Any]:
        """What a role that ends answers."""
        command = [contender.python, "-m", "benchmarks.contenders.drive", contender.module, role, str(count)]
        answer = subprocess.run(command, env=self._environment(), cwd=ROOT, preexec_fn=self._pin, stdout=-1, check=True)
        answered: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
        return answered

    @contextmanager
    def working(self, contender: Contender, journal: Path, pause: str = "0") -> Iterator[int]:
        """Its worker, in a process group of its own, whose id this gives; killed at the end."""
        command = [contender.python, "-m", "benchmarks.contenders.drive", contender.module, "work"]
        env = self._environment(journal, pause)
        worker = subprocess.Popen(
            command, env=env, cwd=ROOT, preexec_fn=self._pin, start_new_session=True, stdout=-3, stderr=-3
        )
        try:
            yield worker.pid
        finally:
            kill_group(worker.pid)
            worker.wait()

    def fresh_journal(self) -> Path:
        self._server.ask("FLUSHALL")
        self._journals += 1
        return self._folder / f"journal-{self._journals}"

    def _environment(self, journal: Path | None = None, pause: str = "0") -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "BENCHMARK_REDIS": f"redis://{self._server.address}/0",
            "BENCHMARK_JOURNAL": str(journal or os.devnull),
            "BENCHMARK_PAUSE": pause,
        }

    def _pin(self) -> None:
        os.sched_setaffinity(0, {self._core})


def kill_group(group: int) -> None:
    """kill -9 of a worker and all its children."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def entries(journal: Path) -> int:
    return journal.stat().st_size // 16 if journal.exists() else 0


def wait_for(journal: Path, count: int, patience: float = PATIENCE_SECONDS) -> bool:
    """Whether the journal has so many entries in time."""
    until = time.monotonic() + patience
    while entries(journal) < count and time.monotonic() < until:
        time.sleep(0.02)
    return entries(journal) >= count


def peak_memory(group: int) -> float:
    """MiB at most in use by a process group, its processes added up."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if os.getpgid(int(status.parent.name)) == group:
                total += next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
        except (OSError, StopIteration):  # it has just ended
            continue
    return total / 1024


def enqueue_rate(bench: Bench, contender: Contender, role: str) -> float:
    bench.fresh_journal()
    answer = bench.run(contender, role, contender.enqueues)
    return float(answer.get("count", contender.enqueues) / answer["seconds"])


def drain(bench: Bench, contender: Contender) -> tuple[float, float]:
    """No-ops a second with one process, from the first to the last, and its memory in MiB."""
    journal = bench.fresh_journal()
    bench.run(contender, "bulk", contender.drains)
    with bench.working(contender, journal) as group:
        if not wait_for(journal, contender.drains):
            return entries(journal) / PATIENCE_SECONDS, peak_memory(group)
        memory = peak_memory(group)
    times = sorted(at for _, at in read(journal))
    return (len(times) - 1) * 1e9 / (times[-1] - times[0]), memory


def latencies(bench: Bench, contender: Contender) -> tuple[float, float]:
    """p50 and p99 of enqueue to start on an idle worker, in milliseconds."""
    journal = bench.fresh_journal()
    with bench.working(contender, journal):
        time.sleep(2)  # until it idles, which nobody tells
        sent = bench.run(contender, "latency", LATENCIES)["sent"]
        wait_for(journal, LATENCIES, 10)
    began = dict(read(journal))
    took = sorted((began[int(number)] - at) / 1e6 for number, at in sent.items() if int(number) in began)
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def crash(bench: Bench, contender: Contender) -> dict[str, Any]:
    """What a kill -9 in mid-drain loses or doubles at default settings, and how long until all is done."""
    journal = bench.fresh_journal()
    bench.run(contender, "bulk", CRASH_KEYS)
    with bench.working(contender, journal, CRASH_PAUSE):
        wait_for(journal, 2 * CRASH_AFTER)
    killed = time.monotonic()
    with bench.working(contender, journal, CRASH_PAUSE):
        until = killed + PATIENCE_SECONDS
        while ended(read(journal)) < CRASH_KEYS and time.monotonic() < until:
            time.sleep(0.1)
    began = [number for number, _ in read(journal) if not number & ENDED]
    finished = ended(read(journal))
    seconds = time.monotonic() - killed if finished == CRASH_KEYS else None
    return {"lost": CRASH_KEYS - finished, "doubled": len(began) - len(set(began)), "seconds": seconds}


def ended(journal: list[Entry]) -> int:
    return len({number for number, _ in journal if number & ENDED})


def one_round(bench: Bench, contender: Contender) -> dict[str, float]:
    rate, memory = drain(bench, contender)
    p50, p99 = latencies(bench, contender)
    found = {
        "bulk enqueue /s": enqueue_rate(bench, contender, "bulk"),
        "enqueue /s": enqueue_rate(bench, contender, "producers"),
        "drain /s": rate,
        "p50 ms": p50,
        "p99 ms": p99,
        "memory MiB": memory,
    }
    if contender.has_duplicates:
        found["duplicates /s"] = enqueue_rate(bench, contender, "duplicates")
    return found


def compare(contenders: list[Contender], rounds: int) -> dict[str, dict[str, Any]]:
    """Medians by contender."""
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        bench = Bench(server, Path(folder))
        measured: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
        for _ in range(rounds):
            for contender in contenders:
                measured[contender.name].append(one_round(bench, contender))
        return {
            contender.name: {
                **{
                    what: median(found[what] for found in measured[contender.name])
                    for what in measured[contender.name][0]
                },
                "crash": crash(bench, contender),
            }
            for contender in contenders
        }


COLUMNS = ("bulk enqueue /s", "enqueue /s", "duplicates /s", "drain /s", "p50 ms", "p99 ms", "memory MiB")


def table(results: dict[str, dict[str, Any]]) -> Table:
    shown = Table(*("", *COLUMNS, "kill -9: lost", "doubled", "all done after"))
    for name, found in results.items():
        crashed = found["crash"]
        after = f"{crashed['seconds']:.1f} s" if crashed["seconds"] else f"not in {PATIENCE_SECONDS} s"
        numbers = [f"{found[what]:,.{0 if what.endswith('/s') else 1}f}" if what in found else "–" for what in COLUMNS]
        shown.add_row(name, *numbers, str(crashed["lost"]), str(crashed["doubled"]), after)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of contenders; all by default")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "compare")
    arguments = parser.parse_args()
    chosen = [c for c in CONTENDERS if not arguments.only or c.name in arguments.only]
    results = compare(chosen, arguments.rounds)
    Console(width=200).print(table(results))
    arguments.output.mkdir(parents=True, exist_ok=True)
    report = arguments.output / "compare.json"
    report.write_text(json.dumps(results, indent=1))
    plot = [environment(("matplotlib",)), "-m", "benchmarks.contenders.plot", report, arguments.output / "compare.png"]
    subprocess.run(plot, cwd=ROOT, check=True)
    print(f"written: {report}, {arguments.output / 'compare.png'}")


if __name__ == "__main__":
    main()

"""What `compare` measures of one contender at a time: how it is installed, run, watched and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.contenders.drive import WARM_UP
from benchmarks.contenders.journal import AGAIN, ENDED, Entry, read
from tests.fakes.redis_server import RedisServer

__all__ = ["CONTENDERS", "MEASURES", "Bench", "Contender", "ContenderFailed", "crash", "environment", "latencies"]

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "workqueue-benchmarks"
PATIENCE_SECONDS = 60
SETTLE_SECONDS = 0.5
LATENCIES = 300
CRASH_PAUSE = "0.1"
CRASH_PART = 0.3


class ContenderFailed(Exception):
    """It did not do what was to be measured; the text says what happened and ends with what it printed."""


@dataclass(frozen=True)
class Contender:
    """One side: its module in `contenders`, what to install for it, and how many it can take in some seconds."""

    name: str
    module: str
    packages: tuple[str, ...]
    enqueues: int
    drains: int
    duplicates: tuple[str, ...] = ()  # the ways in which it can refuse them
    crash_keys: int = 1000

    @property
    def python(self) -> str:
        """The interpreter of its environment, made if need be."""
        return environment(self.packages) if self.packages else sys.executable


CONTENDERS = [
    Contender("ours", "ours", (), 100_000, 60_000, ("duplicates", "bulk-duplicates")),
    Contender("huey", "huey_sync", ("huey", "redis", "hiredis"), 20_000, 15_000, crash_keys=300),
    Contender("taskiq stream", "taskiq_stream", ("taskiq", "taskiq-redis", "hiredis", "uvloop"), 10_000, 10_000),
    Contender("taskiq list", "taskiq_list", ("taskiq", "taskiq-redis", "hiredis", "uvloop"), 10_000, 10_000),
    Contender(
        "SAQ", "saq_async", ("saq[redis]", "typing-extensions", "hiredis", "uvloop"), 15_000, 8_000, ("duplicates",)
    ),
    Contender("arq", "arq_async", ("arq", "hiredis", "uvloop"), 5_000, 6_000, ("duplicates",)),
    Contender("Dramatiq", "dramatiq_sync", ("dramatiq[redis]", "hiredis"), 8_000, 10_000, crash_keys=300),
    Contender("Celery", "celery_sync", ("celery[redis]", "hiredis"), 4_000, 4_000, crash_keys=300),
    Contender("RQ", "rq_sync", ("rq", "hiredis"), 5_000, 1_000, ("duplicates",), crash_keys=60),
]


def environment(packages: tuple[str, ...]) -> str:
    """The interpreter of a virtual environment with these packages, installed once."""
    folder = CACHE / "-".join(package.partition("[")[0] for package in packages)
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        print(f"installing {', '.join(packages)}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
        answer = subprocess.run(install, stderr=subprocess.PIPE, text=True, check=False)
        if answer.returncode:
            raise ContenderFailed(f"{packages[0]} cannot be installed: {tail(answer.stderr)}")
        (folder / "installed").touch()
    return str(python)


def tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


@dataclass(frozen=True)
class Worker:
    """A contender's worker, in a process group of its own."""

    process: subprocess.Popen[bytes]
    journal: Path
    output: Path

    def wait_for(self, count: int, patience: float = PATIENCE_SECONDS) -> None:
        """Until the journal has so many entries.

        Raises:
            ContenderFailed: not in time, or the worker ended.
        """
        until = time.monotonic() + patience
        while entries(self.journal) < count:
            if self.process.poll() is not None:
                raise ContenderFailed(f"the worker ended with {self.process.returncode}: {self.said()}")
            if time.monotonic() > until:
                found = entries(self.journal)
                raise ContenderFailed(f"{found} of {count} journal entries in {patience} s: {self.said()}")
            time.sleep(0.02)

    def said(self) -> str:
        return tail(self.output.read_text(errors="replace")) or "(it printed nothing)"

    def peak_memory(self) -> float:
        """MiB at most in use by its processes, added up."""
        total = 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if os.getpgid(int(status.parent.name)) == self.process.pid:
                    total += next(int(line.split()[1]) for line in status.read_text().splitlines() if "VmHWM" in line)
            except (OSError, StopIteration):  # it has just ended
                continue
        return total / 1024

    def kill(self) -> None:
        """kill -9 of it and all its children."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()


class Bench:
    """One Redis on one core, and contenders run against it on the other.

    Args:
        server: the Redis.
        folder: where journals and what workers print go.
        scale: how many to enqueue and drain, 1 = as many as each contender says.
    """

    def __init__(self, server: RedisServer, folder: Path, scale: float = 1.0) -> None:
        self.scale = scale
        self._server = server
        self._folder = folder
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(server.pid, {cores[0]})
        self._core = cores[-1]
        self._runs = 0

    def scaled(self, count: int) -> int:
        return max(int(count * self.scale), 100)

    def run(self, contender: Contender, role: str, count: int) -> dict[str, Any]:
        """What a role that ends answers.

        Raises:
            ContenderFailed: it failed, or did not end in time.
        """
        try:
            answer = subprocess.run(
                [*self._command(contender, role), str(count)],
                env=self._environment(),
                cwd=ROOT,
                preexec_fn=self._pin,
                capture_output=True,
                timeout=2 * PATIENCE_SECONDS,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise ContenderFailed(f"{role} failed: {tail(error.stderr.decode(errors='replace'))}") from error
        except subprocess.TimeoutExpired as error:
            raise ContenderFailed(f"{role} did not end within {error.timeout:.0f} s") from error
        answered: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
        return answered

    @contextmanager
    def working(self, contender: Contender, journal: Path, pause: str = "0") -> Iterator[Worker]:
        """Its worker, killed at the end."""
        output = journal.with_suffix(".output")
        with output.open("ab") as sink:
            process = subprocess.Popen(
                self._command(contender, "work"),
                env=self._environment(journal, pause),
                cwd=ROOT,
                preexec_fn=self._pin,
                start_new_session=True,
                stdout=sink,
                stderr=sink,
            )
        worker = Worker(process, journal, output)
        try:
            yield worker
        finally:
            worker.kill()

    def fresh_journal(self) -> Path:
        """A journal's path, and an empty Redis."""
        self._server.ask("FLUSHALL")
        self._runs += 1
        return self._folder / f"journal-{self._runs}"

    @staticmethod
    def _command(contender: Contender, role: str) -> list[str]:
        return [contender.python, "-m", "benchmarks.contenders.drive", contender.module, role]

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


def entries(journal: Path) -> int:
    return journal.stat().st_size // 16 if journal.exists() else 0


def enqueue_rate(bench: Bench, contender: Contender, role: str) -> float:
    bench.fresh_journal()
    count = bench.scaled(contender.enqueues)
    return float(count / bench.run(contender, role, count)["seconds"])


def enqueueing(bench: Bench, contender: Contender) -> dict[str, float]:
    """Enqueued a second: in the fastest way it has, and one call each from many producers."""
    return {
        "bulk enqueue /s": enqueue_rate(bench, contender, "bulk"),
        "enqueue /s": enqueue_rate(bench, contender, "producers"),
    }


def duplicating(bench: Bench, contender: Contender) -> dict[str, float]:
    """Enqueued a second when nine of ten are duplicates that it refuses or merges."""
    names = {"duplicates": "duplicates /s", "bulk-duplicates": "bulk duplicates /s"}
    return {names[role]: enqueue_rate(bench, contender, role) for role in contender.duplicates}


def draining(bench: Bench, contender: Contender) -> dict[str, float]:
    """No-ops a second with one process, from the first to the last, and its memory."""
    journal, count = bench.fresh_journal(), bench.scaled(contender.drains)
    bench.run(contender, "bulk", count)
    with bench.working(contender, journal) as worker:
        worker.wait_for(count)
        memory = worker.peak_memory()
    ran = sorted(read(journal), key=lambda entry: entry[1])
    different = {number for number, _ in ran}
    if different != set(range(count)):
        raise ContenderFailed(f"of {count} enqueued {len(different)} were among the first {count} runs")
    return {"drain /s": (count - 1) * 1e9 / (ran[count - 1][1] - ran[0][1]), "memory MiB": memory}


def latencies(bench: Bench, contender: Contender, keys: int = LATENCIES) -> dict[str, float]:
    """p50 and p99 of enqueue to start on a worker that has proved to be up, and idles."""
    journal = bench.fresh_journal()
    bench.run(contender, "bulk", 1)
    with bench.working(contender, journal) as worker:
        worker.wait_for(1)
        time.sleep(SETTLE_SECONDS)  # until it waits again, which nobody announces
        sent = bench.run(contender, "latency", keys)["sent"]
        worker.wait_for(1 + WARM_UP + keys, 10)
    at_start = dict(read(journal))
    took = sorted((at_start[int(number)] - at) / 1e6 for number, at in sent.items())
    return {"p50 ms": took[len(took) // 2], "p99 ms": took[int(len(took) * 0.99)]}


MEASURES: dict[str, Callable[[Bench, Contender], dict[str, float]]] = {
    "draining": draining,
    "latency": latencies,
    "enqueueing": enqueueing,
    "duplicates": duplicating,
}


def crash(contender: Contender, folder: Path, patience: float) -> dict[str, Any]:
    """What a kill -9 in mid-drain loses or doubles at default settings, and how long until all is done.

    On a Redis of its own, so that several contenders can be waited for at once. A new worker starts at once.
    """
    with RedisServer() as server:
        bench = Bench(server, folder)
        journal, count = bench.fresh_journal(), contender.crash_keys
        bench.run(contender, "bulk", count)
        with bench.working(contender, journal, CRASH_PAUSE) as worker:
            worker.wait_for(1)
            while began(read(journal)) < CRASH_PART * count:  # so that the last ones to begin are in the middle
                worker.wait_for(entries(journal) + 1)
        killed = time.monotonic()
        with bench.working(contender, journal, CRASH_PAUSE):
            while ended(read(journal)) < count and time.monotonic() < killed + patience:
                time.sleep(0.1)
    written = read(journal)
    finished, starts = ended(written), sum(not number & ENDED for number, _ in written)
    seconds = time.monotonic() - killed if finished == count else None
    return {"lost": count - finished, "doubled": starts - began(written), "seconds": seconds}


def began(journal: list[Entry]) -> int:
    return len({number & ~AGAIN for number, _ in journal if not number & ENDED})


def ended(journal: list[Entry]) -> int:
    return len({number for number, _ in journal if number & ENDED})

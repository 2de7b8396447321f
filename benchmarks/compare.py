"""Ours beside seven Python task queues on one Redis in one run: `python -m benchmarks.compare [--rounds N] [--only …]`.

Installs each into a virtual environment of its own (in the user's cache folder), pins Redis to one core and whoever is
measured to another, and goes round them `--rounds` times, so that a machine that slows down slows all of them. Prints a
table of medians and how the targets are met, and writes `compare.json`, anew after every round, and `compare.png` to
`--output`. Who fails at something is named, has a dash there, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.compare_measures import (
    CONTENDERS,
    MEASURES,
    ROOT,
    Bench,
    Contender,
    ContenderFailed,
    crash,
    environment,
)
from benchmarks.compare_report import check, medians, results_table, targets_table
from tests.fakes.redis_server import RedisServer

Document = dict[str, Any]


def say(text: str) -> None:
    """A line of progress, with the time."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def installed(contenders: Sequence[Contender], bench: Bench) -> dict[str, dict[str, str]]:
    """The versions in the environment of each contender that can be installed."""
    found = {}
    for contender in contenders:
        try:
            found[contender.name] = bench.run(contender, "versions", 0)
        except ContenderFailed as error:
            say(f"{contender.name} takes no part: {error}")
    return found


def facts(server: RedisServer, arguments: argparse.Namespace) -> dict[str, Any]:
    """On what this was measured, and how."""
    info = server.ask("INFO", "server")
    redis = f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {info['redis_version']}"
    models = [
        line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "name" in line
    ]
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "redis": redis,
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "rounds": arguments.rounds,
        "scale": arguments.scale,
    }


def one_round(bench: Bench, contenders: Sequence[Contender]) -> Document:
    """Everything of everybody once: the numbers, and who failed at what."""
    measured: dict[str, dict[str, float]] = {}
    failed: dict[str, dict[str, str]] = {}
    load = os.getloadavg()[0]
    for contender in contenders:
        began, found = time.monotonic(), measured.setdefault(contender.name, {})
        for what, measure in MEASURES.items():
            try:
                found |= measure(bench, contender)
            except ContenderFailed as error:
                say(f"{contender.name} failed at {what}: {error}")
                failed.setdefault(contender.name, {})[what] = str(error)
        numbers = ", ".join(f"{value:,.5g} {what}" for what, value in found.items())
        say(f"{contender.name} ({time.monotonic() - began:.0f} s): {numbers}")
    return {"load": load, "measured": measured, "failed": failed}


def crashes(contenders: Sequence[Contender], folder: Path, patience: float) -> dict[str, Any]:
    """The crash of each: ours alone, then the peers all at once, since nearly all of it is waiting."""

    def one(contender: Contender) -> dict[str, Any]:
        place = folder / contender.module
        place.mkdir()
        try:
            return {**crash(contender, place, patience), "patience": patience}
        except ContenderFailed as error:
            say(f"{contender.name} failed at the crash: {error}")
            return {"failed": str(error)}

    say(f"kill -9 in mid-drain, and up to {patience:.0f} s until all is done, twice")
    with ThreadPoolExecutor(max(len(contenders), 1)) as pool:
        found: dict[str, Any] = {}
        for group in ([c for c in contenders if not c.packages], [c for c in contenders if c.packages]):
            found |= dict(zip([c.name for c in group], pool.map(one, group), strict=True))
        return found


def save(document: Document, path: Path) -> None:
    """Write it whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(document, indent=1))
    unfinished.replace(path)


def compare(contenders: Sequence[Contender], arguments: argparse.Namespace, report: Path) -> Document:
    """All rounds and the crash; saved after each."""
    began = time.monotonic()
    with RedisServer() as server, tempfile.TemporaryDirectory() as folder:
        bench = Bench(server, Path(folder), arguments.scale)
        document: Document = {"facts": facts(server, arguments), "rounds": [], "crash": {}}
        document["versions"] = installed(contenders, bench)
        present = [contender for contender in contenders if contender.name in document["versions"]]
        for number in range(arguments.rounds):
            say(f"round {number + 1} of {arguments.rounds}")
            document["rounds"].append(one_round(bench, present))
            save(summed_up(document, began), report)
        if arguments.crash_patience:
            document["crash"] = crashes(present, Path(folder), arguments.crash_patience)
            save(summed_up(document, began), report)
    return document


def summed_up(document: Document, began: float) -> Document:
    middles = medians([one["measured"] for one in document["rounds"]])
    targets = [
        {"what": met.target.what, "ours": met.ours, "peer": met.peer, "best": met.best, "ratio": met.ratio}
        | {"asked": met.target.asked, "met": met.is_met}
        for met in check(middles)
    ]
    return document | {"medians": middles, "targets": targets, "seconds": time.monotonic() - began}


def show(document: Document, names: Sequence[str]) -> None:
    middles = medians([one["measured"] for one in document["rounds"]])
    console = Console(width=200)
    console.print(results_table(names, middles, document["crash"]))
    console.print(targets_table(check(middles)))


def draw(report: Path) -> Path:
    """The plot beside the report; drawn in an environment of its own, since nothing else needs matplotlib."""
    target = report.with_suffix(".png")
    plot = [environment(("matplotlib",)), "-m", "benchmarks.contenders.plot", str(report), str(target)]
    subprocess.run(plot, cwd=ROOT, check=True)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="names of contenders; all by default")
    parser.add_argument("--scale", type=float, default=1.0, help="of what is enqueued and drained, for a quick look")
    parser.add_argument("--crash-patience", type=float, default=60.0, help="seconds; 0 leaves the crash out")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "compare")
    arguments = parser.parse_args()
    began = time.monotonic()
    chosen = [c for c in CONTENDERS if not arguments.only or c.name in arguments.only]
    report = arguments.output / "compare.json"
    document = compare(chosen, arguments, report)
    show(document, [contender.name for contender in chosen])
    print(f"written: {report}, {draw(report)}")
    print(f"{time.monotonic() - began:.0f} seconds in all")


if __name__ == "__main__":
    main()

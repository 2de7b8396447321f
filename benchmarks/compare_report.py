"""What `compare` makes of its measurements: medians, the targets and whether they are met, tables. Runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

__all__ = ["TARGETS", "Met", "Round", "Target", "check", "medians", "results_table", "targets_table"]

OURS = "ours"
COLUMNS = (
    "bulk enqueue /s",
    "enqueue /s",
    "bulk duplicates /s",
    "duplicates /s",
    "drain /s",
    "p50 ms",
    "p99 ms",
    "memory MiB",
)

Round = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Target:
    """A ratio that is asked for: ours by the best peer's.

    Args:
        what: how it is called.
        measure: what is compared.
        asked: the least ratio, or for a latency the most.
        by: what of ours is compared, if it is something else.
    """

    what: str
    measure: str
    asked: float
    by: str = ""

    @property
    def more_is_better(self) -> bool:
        return self.measure.endswith("/s")


TARGETS = (
    Target("drain", "drain /s", 6),
    Target("queue_many", "bulk enqueue /s", 5),
    Target("queue, 64 producers", "enqueue /s", 2),
    Target("90 % duplicates, 64 producers", "duplicates /s", 3),
    Target("90 % duplicates, queue_many", "duplicates /s", 3, by="bulk duplicates /s"),
    Target("latency p50", "p50 ms", 1.0),
    Target("latency p99", "p99 ms", 1.0),
)


@dataclass(frozen=True)
class Met:
    """How a target was met."""

    target: Target
    ours: float
    peer: str
    best: float

    @property
    def ratio(self) -> float:
        return self.ours / self.best

    @property
    def is_met(self) -> bool:
        return self.ratio >= self.target.asked if self.target.more_is_better else self.ratio <= self.target.asked


def medians(rounds: Sequence[Round]) -> dict[str, dict[str, float]]:
    """By contender and measure, over the rounds in which it was measured."""
    found: dict[str, dict[str, list[float]]] = {}
    for one in rounds:
        for name, measured in one.items():
            for what, value in measured.items():
                found.setdefault(name, {}).setdefault(what, []).append(value)
    return {name: {what: median(values) for what, values in columns.items()} for name, columns in found.items()}


def check(middles: Mapping[str, Mapping[str, float]]) -> list[Met]:
    """Every target for which both we and a peer were measured."""
    ours = middles.get(OURS, {})
    found = []
    for target in TARGETS:
        peers = {name: of[target.measure] for name, of in middles.items() if name != OURS and target.measure in of}
        measure = target.by or target.measure
        if peers and measure in ours:
            best = (max if target.more_is_better else min)(peers, key=peers.__getitem__)
            found.append(Met(target, ours[measure], best, peers[best]))
    return found


def results_table(
    names: Sequence[str], middles: Mapping[str, Mapping[str, float]], crashes: Mapping[str, Mapping[str, Any]]
) -> Table:
    """A row for every contender; what could not be measured is a dash."""
    shown = Table("", *COLUMNS, "kill -9: not done", "run again", "all done after")
    for name in names:
        numbers = [number(middles.get(name, {}).get(what), what) for what in COLUMNS]
        shown.add_row(name, *numbers, *crash_cells(crashes.get(name, {})))
    return shown


def number(value: float | None, what: str) -> str:
    return "–" if value is None else f"{value:,.{0 if what.endswith('/s') else 2}f}"


def crash_cells(found: Mapping[str, Any]) -> tuple[str, str, str]:
    if "lost" not in found:
        return "–", "–", "–"
    after = f"{found['seconds']:.1f} s" if found["seconds"] else f"not in {found['patience']:.0f} s"
    return str(found["lost"]), str(found["doubled"]), after


def targets_table(targets: Sequence[Met]) -> Table:
    shown = Table("target", "ours", "best peer", "ratio", "asked", "met?")
    for met in targets:
        measure = met.target.measure
        asked = f"{'≥' if met.target.more_is_better else '≤'} {met.target.asked:g}"
        best = f"{number(met.best, measure)} ({met.peer})"
        shown.add_row(
            met.target.what,
            number(met.ours, measure),
            best,
            f"{met.ratio:.2f}",
            asked,
            "yes" if met.is_met else "NO",
        )
    return shown

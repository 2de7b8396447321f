"""What the comparison with other queues makes of its measurements, and that its contenders have one shape."""

from __future__ import annotations

import ast
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.compare_measures import CONTENDERS, ROOT, Contender
from benchmarks.compare_report import TARGETS, Round, check, medians, results_table, targets_table
from benchmarks.contenders import drive

OURS = {"drain /s": 63_000.0, "bulk duplicates /s": 90_000.0, "duplicates /s": 20_000.0, "p99 ms": 2.0}
MIDDLES = {
    "ours": OURS,
    "swift": {"drain /s": 9_000.0, "duplicates /s": 10_000.0, "p99 ms": 4.0},
    "slow": {"drain /s": 500.0, "p99 ms": 1.0},
}


def functions(contender: Contender) -> set[str]:
    """What its module defines; read and not imported, since what it imports is installed elsewhere."""
    module = ast.parse((ROOT / "benchmarks" / "contenders" / f"{contender.module}.py").read_text())
    names = {node.name for node in module.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    for node in module.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            names |= {name.id for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def printed(table: object) -> str:
    console = Console(width=200, file=StringIO())
    console.print(table)
    return console.file.getvalue() if isinstance(console.file, StringIO) else ""


def test_a_median_is_over_the_rounds_in_which_something_was_measured() -> None:
    rounds: list[Round] = [
        {"huey": {"drain /s": 1.0}},
        {"huey": {}},
        {"huey": {"drain /s": 3.0}},
        {"huey": {"drain /s": 9.0}},
    ]
    assert medians(rounds) == {"huey": {"drain /s": 3.0}}


def test_a_target_is_judged_against_the_best_peer_and_in_its_own_direction() -> None:
    found = {met.target.what: (met.peer, met.is_met) for met in check(MIDDLES)}
    assert found == {
        "drain": ("swift", True),
        "90 % duplicates, 64 producers": ("swift", False),
        "90 % duplicates, queue_many": ("swift", True),
        "latency p99": ("slow", False),
    }


def test_what_could_not_be_measured_is_a_dash_and_the_others_are_shown() -> None:
    crashes: dict[str, dict[str, Any]] = {
        "swift": {"lost": 8, "doubled": 1, "seconds": None, "patience": 60.0},
        "slow": {"failed": "why"},
    }
    shown = printed(results_table([*MIDDLES, "absent"], MIDDLES, crashes))
    assert "9,000" in shown
    assert "not in 60 s" in shown
    absent = next(line for line in shown.splitlines() if "absent" in line)
    assert absent.count("–") == 11


def test_the_table_of_targets_tells_ratio_and_verdict() -> None:
    drain = next(line for line in printed(targets_table(check(MIDDLES))).splitlines() if "drain" in line)
    assert [cell in drain for cell in ("63,000", "9,000 (swift)", "7.00", "≥ 6", "yes")] == [True] * 5


def test_nine_of_ten_duplicates_are_duplicates() -> None:
    numbers = drive.duplicates(1000)
    assert (len(numbers), len(set(numbers))) == (1000, 100)


def test_every_target_is_of_something_that_ours_is_measured_for() -> None:
    assert CONTENDERS[0].name == "ours"
    assert {target.by or target.measure for target in TARGETS} <= {
        "drain /s", "bulk enqueue /s", "enqueue /s", "duplicates /s", "bulk duplicates /s", "p50 ms", "p99 ms",
    }  # fmt: skip


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_a_contender_has_what_the_driver_calls(contender: Contender) -> None:
    needed = {"ASYNC", "opened", "one", "work"}
    if contender.duplicates:
        needed.add("duplicate")
    if contender.module.endswith("_sync"):
        needed.add("THREADS")
    assert needed <= functions(contender)
    assert Path(ROOT / "benchmarks" / "contenders" / f"{contender.module}.py").is_file()

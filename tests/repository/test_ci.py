"""`.ci/run`: which rooms it runs, in which order, and that their budgets fit into half an hour."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, Ended, ran

MINUTES = 30
PYTHONS = ["3.11", "3.12", "3.13"]
# Notes how it was called; the chart's room then takes some seconds of CPU, if it is to be over its budget.
MAKE = """#!/bin/sh
echo "$@" >> called
[ "$1" = test-chart ] || exit {code}
exec "{python}" -S -c 'import time
while time.process_time() < {seconds}: pass'
"""


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `.ci/run` reads, and Pythons that only say which they are; 3.11 is that of `.venv`."""
    for folder in (".ci", ".venv/bin", "bin"):
        (tmp_path / folder).mkdir(parents=True)
    for name in (".ci/run", "Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for version in PYTHONS:
        script(tmp_path / f"bin/python{version}", f"#!/bin/sh\necho {version}\n")
    script(tmp_path / ".venv/bin/python", "#!/bin/sh\necho 3.11\n")
    return tmp_path


def run(
    checkout: Path, *wanted: str, seconds: float = 0, code: int = 0, minutes: str = "25"
) -> tuple[Ended, list[str]]:
    """`.ci/run` with a `make` that takes `seconds` for the chart and exits with `code` else; how that was called."""
    script(checkout / "bin/make", MAKE.format(python=sys.executable, seconds=seconds, code=code))
    environment = {"PATH": f"{checkout}/bin:/usr/bin:/bin", "CI_MINUTES": minutes}
    ended = ran([checkout / ".ci/run", *wanted], env=environment, cwd=checkout)
    called = checkout / "called"
    return ended, called.read_text().splitlines() if called.exists() else []


def rooms(called: list[str]) -> list[str]:
    """The targets in their order, but for the environments, which are made beside the first of them."""
    targets = [line.split()[0] for line in called]
    return [target for target in targets if target != "setup"]


def budgets() -> dict[str, int]:
    (line,) = re.findall(r"^BUDGETS := (.*)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    return {target: int(minutes) for target, minutes in (each.split("=") for each in line.split())}


def test_the_rooms_that_ci_runs_fit_into_half_an_hour_the_cheapest_news_first(checkout: Path) -> None:
    ended, called = run(checkout)

    made = rooms(called)
    assert ended.code == 0, ended.err
    assert made == ["lint", "docs", "test", "test-quick", "test-quick", "test-chart", "test-browser"]
    assert sum(budgets()[target] for target in made) <= MINUTES
    assert "OVER" not in ended.err


def test_each_other_python_is_made_ready_before_the_suite_begins(checkout: Path) -> None:
    _, called = run(checkout)

    others = [line.removeprefix("test-quick ") for line in called if line.startswith("test-quick ")]
    assert [line.partition("VENV=")[2] for line in others] == [".venv-3.12", ".venv-3.13"]
    assert {f"setup {other}" for other in others} <= {*called[: called.index("test")]}


def test_every_room_of_the_suite_has_a_budget() -> None:
    text = (REPOSITORY / "Makefile").read_text()

    assert set(re.findall(r"^(test[a-z-]*):", text, re.MULTILINE)) <= budgets().keys()


def test_a_room_over_its_budget_is_named_at_the_end_and_fails_nothing(checkout: Path) -> None:
    makefile = checkout / "Makefile"
    makefile.write_text(re.sub(r" test-chart=\d+", " test-chart=0", makefile.read_text()))

    ended, _ = run(checkout, seconds=2.5)

    assert ended.code == 0
    [over] = [line for line in ended.err.splitlines() if "OVER" in line]
    assert re.fullmatch(r"test-chart: \d+ s of CPU of 0, OVER; \d+ s in all", over)


def test_a_room_that_would_end_too_late_is_left_out_and_named(checkout: Path) -> None:
    ended, called = run(checkout, minutes="5")  # room for the cross-sections and the chart, and none for the browser

    assert ended.code == 0
    assert rooms(called) == ["lint", "docs", "test", "test-quick", "test-quick", "test-chart"]
    assert "test-browser: NOT RUN, it would end too late" in ended.err.splitlines()


def test_a_second_machine_runs_the_rooms_that_it_is_given(checkout: Path) -> None:
    ended, called = run(checkout, "test-kubernetes", "test-floors", minutes="0")

    assert ended.code == 0
    assert called == ["test-kubernetes", "test-floors"]
    assert [line.partition(":")[0] for line in ended.err.splitlines()] == called


def test_a_room_that_fails_ends_the_run(checkout: Path) -> None:
    ended, _ = run(checkout, code=1)

    assert ended.code == 1


def test_what_the_cross_section_leaves_out_is_there() -> None:
    plan = ran(["make", "--dry-run", "test-quick"]).out

    left_out = re.findall(r"--ignore=(\S+)", plan)
    assert left_out
    assert [path for path in left_out if not (REPOSITORY / path).exists()] == []


def test_what_the_lowest_versions_are_tried_with_is_there() -> None:
    plan = ran(["make", "--dry-run", "test-floors"]).out.splitlines()

    (command,) = [line for line in "\n".join(plan).replace("\\\n", "").splitlines() if "-m pytest" in line]
    tried = re.findall(r"(?<==|\s)tests/\S*", command)
    assert "tests/floors" in tried
    assert [path for path in tried if not (REPOSITORY / path).exists()] == []


def test_lint_which_ci_runs_checks_the_committed_code_of_grpc() -> None:
    assert "proto/generate.py --check" in ran(["make", "--dry-run", "lint"]).out

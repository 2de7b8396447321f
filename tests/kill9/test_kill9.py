"""kill -9 at fifty points of a key's life, on SQLite, judged by an independent ledger."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.kill9.ledger import Ledger, Line, faults
from tests.kill9.stages import STAGES
from tests.support.processes import python
from tests.support.stderr import complaints

ROOT = Path(__file__).parent.parent.parent
KEYS = 24
SEED = 20_261_122
_PLACES = [(stage, when) for stage in STAGES for when in ("before", "after")]
POINTS = [
    f"{stage}:{when}:{number}"
    for stage, when in _PLACES
    for number in random.Random(f"{SEED}{stage}{when}").sample(range(1, 7), 5)
]


def two_lives(places: Iterable[tuple[Path, str]]) -> list[tuple[Path, int, int]]:
    """For each workspace and point a life that is killed there and one that goes on; returns how each ended."""
    lines = "".join(f"{workspace} {point} {KEYS}\n" for workspace, point in places)
    lives = python("-m", "tests.kill9.life", stdin=lines, timeout=290)
    assert lives.code == 0
    ended = [line.split() for line in lives.out.splitlines()]
    return [(Path(workspace), int(first), int(second)) for workspace, first, second in ended]


def wrong(workspace: Path, first: int, second: int) -> list[str]:
    """What went wrong in one workspace."""
    lines, log = Ledger(workspace).read(), (workspace / "log").read_text()
    found = faults(lines)
    found += [f"the store was not there: {line.how}" for line in lines if line.what == "unavailable"]
    if first != -signal.SIGKILL:
        found.append(f"the first life ended with {first}: it did not reach its kill point")
    if second != 0:
        found.append(f"the second life ended with {second}: {log[-2000:]}")
    return [*found, *complaints(log)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("part", range(4))
def test_nothing_is_lost_or_run_twice_at_once_when_a_process_is_killed_at_any_stage(tmp_path: Path, part: int) -> None:
    workspaces = {tmp_path / point.replace(":", "-"): point for point in POINTS[part::4]}
    for workspace in workspaces:
        workspace.mkdir()
    ended = two_lives(workspaces.items())
    assert {workspace for workspace, *_ in ended} == workspaces.keys()
    faults_by_point = {workspaces[workspace]: wrong(workspace, *lives) for workspace, *lives in ended}
    assert not any(faults_by_point.values()), faults_by_point


@pytest.mark.timeout(300)
def test_two_dispatchers_on_one_file_share_it_within_the_limit_while_both_are_killed_and_restarted(
    tmp_path: Path,
) -> None:
    ended = two_lives([(tmp_path, "call:after:5"), (tmp_path, "settle:before:7")])
    assert [wrong(*lives) for lives in ended] == [[], []]


def test_fifty_points_cover_every_stage() -> None:
    assert len(set(POINTS)) == 50
    assert {point.split(":")[0] for point in POINTS} == set(STAGES)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([Line("accepted", "a")], "a: accepted, but never completed"),
        ([Line("begin", "a", 2), Line("begin", "a", 2)], "a: attempt 2 follows attempt 2"),
        ([Line("violation", "a", how="process 7 has it in progress too")], "a: process 7 has it in progress too"),
    ],
)
def test_the_ledger_notices_what_it_is_there_to_notice(lines: list[Line], fault: str) -> None:
    assert faults(lines) == [fault]


def test_the_witness_notices_two_owners_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.enter("a")
    ledger.enter("a")
    assert [line.what for line in ledger.read()] == ["violation"]


def test_the_witness_notices_more_attempts_than_the_limit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, limit=1)
    ledger.enter("a")
    ledger.enter("b")
    assert [line.how for line in ledger.read()] == ["2 attempts at once, the limit is 1"]

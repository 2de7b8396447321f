"""The soak's witness sees what it is there to see, and nothing that was not."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.soak_witness import Log, Witness, verdict
from tests.support.processes import python

_BEGIN_AND_DIE = """
import os, sys
from pathlib import Path
from benchmarks.soak_witness import Witness
Witness(Path(sys.argv[1]), limit=1).begin(7)
os._exit(9)
"""


def test_a_key_that_two_have_at_once_is_seen(tmp_path: Path) -> None:
    witness = Witness(tmp_path, limit=10)

    witness.begin(7)
    witness.begin(7)

    assert verdict(tmp_path)["run by two owners at once"] == 1
    assert verdict(tmp_path)["begun beyond the limit"] == 0


def test_one_attempt_more_than_the_limit_is_seen(tmp_path: Path) -> None:
    witness = Witness(tmp_path, limit=2)

    for key in range(3):
        witness.begin(key)

    assert verdict(tmp_path)["begun beyond the limit"] == 1
    assert verdict(tmp_path)["run by two owners at once"] == 0


def test_attempts_one_after_the_other_break_nothing(tmp_path: Path) -> None:
    witness = Witness(tmp_path, limit=1)

    for _ in range(2):
        slot = witness.begin(7)
        witness.end(7, slot, time.monotonic_ns(), attempts=1)

    found = verdict(tmp_path)
    assert (found["runs that ended"], found["run by two owners at once"], found["begun beyond the limit"]) == (2, 0, 0)


def test_what_a_dead_process_held_is_free(tmp_path: Path) -> None:
    died = python("-c", _BEGIN_AND_DIE, tmp_path)
    assert died.code == 9

    Witness(tmp_path, limit=1).begin(7)

    found = verdict(tmp_path)
    assert (found["run by two owners at once"], found["begun beyond the limit"]) == (0, 0)


def test_a_key_that_did_not_run_after_its_last_enqueue_is_seen(tmp_path: Path) -> None:
    Log(tmp_path / "accepted-1").write((7, 10, 0), (8, 10, 0), (8, 30, 0))
    Log(tmp_path / "runs-1").write((7, 20, 1), (8, 20, 1))

    assert verdict(tmp_path)["accepted but never run after"] == 1


def test_a_lease_that_is_settled_twice_is_seen(tmp_path: Path) -> None:
    Log(tmp_path / "settled-1").write((1, 1, 0))
    Log(tmp_path / "settled-2").write((1, 1, 0), (2, 1, 0))

    assert verdict(tmp_path)["leases settled twice"] == 1

"""What a type checker sees of the public names: each as it is, and of none that does not exist that it did."""

from __future__ import annotations

from pathlib import Path

from tests.support.processes import REPOSITORY, python

FACES = ("workqueue", "dispatcher", "workqueue.rpc", "workqueue.routing")


def test_a_misspelt_name_is_an_error_of_the_type_checker_and_none_is_not(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    good = "from workqueue import Attempt, open_queue\nfrom workqueue.rpc import connect\n"
    program.write_text(good + "\n".join(f"from {face} import Atempt" for face in FACES))

    ended = python("-m", "mypy", "--strict", program, env={"MYPYPATH": str(REPOSITORY)}, complains=True)

    found = [line for line in ended.out.splitlines() if "error:" in line]
    assert [line.partition('Module "')[2].partition('"')[0] for line in found] == list(FACES), ended

"""The committed gRPC code is what proto/ yields, made by the oldest generator, so that it asks for no newer gRPC."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.floors import floors
from tests.support.processes import REPOSITORY, Ended, python

COMMITTED = Path("workqueue", "rpc", "pb")


def check(out: Path) -> Ended:
    return python("proto/generate.py", "--check", "--out", out, complains=True)


def test_the_committed_files_are_byte_for_byte_what_the_generator_makes() -> None:
    assert check(REPOSITORY).err == ""


def test_a_file_that_was_edited_one_that_is_missing_and_one_of_nowhere_are_named(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(REPOSITORY / COMMITTED, tmp_path / COMMITTED))
    with (folder / "workqueue_pb2.pyi").open("a") as stub:
        stub.write("\n")
    (folder / "externalscaler_pb2_grpc.py").unlink()
    (folder / "old_pb2.py").touch()

    ended = check(tmp_path)

    assert (ended.code, ended.out) == (1, "")
    assert "externalscaler_pb2_grpc.py, old_pb2.py, workqueue_pb2.pyi;" in ended.err


def test_what_is_generated_anew_passes_the_check(tmp_path: Path) -> None:
    assert python("proto/generate.py", "--out", tmp_path).code == 0

    assert check(tmp_path).code == 0


@pytest.mark.parametrize(("name", "floor"), floors().items(), ids=floors())
def test_what_is_tried_here_is_the_lowest_version(name: str, floor: str) -> None:
    assert version(name).startswith(floor)

"""The committed gRPC code is what proto/ yields, made by the oldest generator, so that it asks for no newer gRPC."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

from tests.support.floors import floors
from tests.support.processes import REPOSITORY, python

COMMITTED = REPOSITORY / "workqueue" / "rpc" / "pb"


def test_regenerating_gives_the_committed_files_byte_for_byte(tmp_path: Path) -> None:
    assert python("proto/generate.py", "--out", tmp_path).code == 0

    assert contents(tmp_path / "workqueue" / "rpc" / "pb") == contents(COMMITTED) != {}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*_pb2*"))}


@pytest.mark.parametrize(("name", "floor"), floors().items(), ids=floors())
def test_what_is_tried_here_is_the_lowest_version(name: str, floor: str) -> None:
    assert version(name).startswith(floor)

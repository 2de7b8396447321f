"""How a program starts: its modules are imported without looking for garbage in between."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, python

START = "import gc; gc.{before}(); from workqueue.extras import run_main; run_main('mine', 'mine')"
MINE = "import gc\nthen = gc.isenabled()\ndef main(): print(then, gc.isenabled())\n"


@pytest.mark.parametrize(("before", "after"), [("enable", "True"), ("disable", "False")])
def test_no_garbage_is_looked_for_while_a_program_is_imported(tmp_path: Path, before: str, after: str) -> None:
    (tmp_path / "mine.py").write_text(MINE)

    ended = python("-c", START.format(before=before), env={"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"})

    assert ended.out.split() == ["False", after]

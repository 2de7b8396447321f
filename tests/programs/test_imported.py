"""A module of the user's that cannot be imported: its own traceback, then one line that names the setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, python

BROKEN = [
    ("raise ValueError('settings are not configured')", "ValueError: settings are not configured"),
    ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    ("def f(:", "SyntaxError: invalid syntax"),
]


@pytest.mark.parametrize(("program", "said"), BROKEN, ids=["raises", "lacks a module", "is no Python"])
def test_a_callback_that_cannot_be_imported_shows_its_own_frames_alone(tmp_path: Path, program: str, said: str) -> None:
    (tmp_path / "mine.py").write_text(program)
    serve = ["-m", "dispatcher.cli", "serve", "--callback", "mine:f"]

    ended = python(*serve, cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY)}, complains=True)

    assert ended.code == 2
    assert ended.err.splitlines()[-1].startswith(
        f"dispatcher: --callback or WORKQUEUE_CALLBACK: mine cannot be imported: {said}"
    )
    assert 'mine.py", line 1' in ended.err
    assert "importlib" not in ended.err
    assert "dispatcher/cli.py" not in ended.err

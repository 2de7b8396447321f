"""`make setup`: the environment is of the Python that was asked for."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.processes import REPOSITORY, ran


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout whose .venv was set up with a Python that calls itself 3.9.0."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\necho Python 3.9.0\n")
    python.chmod(0o755)
    (tmp_path / ".venv" / "installed").touch()
    return tmp_path


def planned(project: Path, *arguments: str) -> str:
    """What `make setup` would run."""
    command = ["make", "--dry-run", "setup", *arguments]
    shaping = [name for name in os.environ if name.startswith(("MAKE", "MFLAGS", "PYTHON", "VENV"))]
    ended = ran(command, cwd=project, env=dict.fromkeys(shaping))
    assert ended.code == 0, ended.err
    return ended.out


@pytest.mark.parametrize("folder", [".venv", ".venv-3.9"])
def test_an_environment_of_another_python_is_made_anew(project: Path, folder: str) -> None:
    (project / ".venv").rename(project / folder)

    steps = planned(project, f"VENV={folder}", f"PYTHON={sys.executable}")

    assert f"rm -rf {folder} " in steps
    assert f"-m venv {folder}" in steps


def test_an_environment_of_the_python_that_was_asked_for_is_kept(project: Path) -> None:
    (project / ".venv" / "bin" / "python").write_text(f"#!/bin/sh\necho Python {platform.python_version()}\n")

    assert "pip install" not in planned(project, f"PYTHON={sys.executable}")


def test_without_a_wish_the_environment_that_is_there_will_do(project: Path) -> None:
    assert "pip install" not in planned(project)

"""The source distribution holds all that its tests read, and nothing that a run left behind."""

from __future__ import annotations

import tarfile
from pathlib import Path

from hatchling.builders.sdist import SdistBuilder

from tests.support.processes import REPOSITORY

FILES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "pyproject.toml",
    ".ci/run",
    ".gitignore",
)
LEFT_BEHIND = (".pyc", ".db", ".db-wal", ".db-shm")


def sources() -> set[str]:
    """Every file of the rooms, by its path."""
    rooms = [path for path in REPOSITORY.iterdir() if path.is_dir() and path.name not in ("build", "dist")]
    ours = [room for room in rooms if not room.name.startswith(".")]
    found = [path for room in ours for path in room.rglob("*") if path.is_file() and path.suffix not in LEFT_BEHIND]
    return {path.relative_to(REPOSITORY).as_posix() for path in found}


def test_an_unpacked_sdist_has_every_file_that_is_here(tmp_path: Path) -> None:
    (built,) = SdistBuilder(str(REPOSITORY)).build(directory=str(tmp_path))
    with tarfile.open(built) as sdist:
        packed = {"/".join(name.split("/")[1:]) for name in sdist.getnames()}

    assert sources() | set(FILES) <= packed
    assert not [
        name for name in packed if name.startswith((".venv", ".git/", ".hypothesis")) or name.endswith(LEFT_BEHIND)
    ]

"""What an extra brings along, by the metadata of what is installed here: pip's reckoning, without pip and an index."""

from __future__ import annotations

import tomllib
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.processes import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def named_by(extra: str) -> set[str]:
    """The distributions that pyproject.toml names for `extra` itself, not by way of other extras."""
    names: set[str] = {canonicalize_name(Requirement(line).name) for line in EXTRAS[extra]}
    return names - {PROJECT["name"]}


def brought_by(extra: str) -> set[str]:
    """Every distribution that an installation of `extra` brings on this Python, ours not counted."""
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(f"{PROJECT['name']}[{extra}]")]
    while waiting:
        requirement = waiting.pop()
        for part in ("", *requirement.extras):
            node = (canonicalize_name(requirement.name), part)
            if node not in found:
                found.add(node)
                waiting.extend(_asked_for(*node))
    return {name for name, _ in found} - {PROJECT["name"]}


def _asked_for(name: str, extra: str) -> list[Requirement]:
    """What a distribution asks for on this Python, by itself or for one extra of its own."""
    # The metadata of an editable installation are as old as the installation.
    lines = EXTRAS.get(extra, []) if name == PROJECT["name"] else distribution(name).requires or []
    asked = [Requirement(line) for line in lines]
    return [each for each in asked if each.marker is None or each.marker.evaluate({"extra": extra})]


def megabytes(names: set[str]) -> float:
    """What the files of distributions take, in millions of bytes; what Python compiles of them is not counted."""
    files = [file for name in names for file in distribution(name).files or () if file.suffix != ".pyc"]
    paths = [Path(file.locate()) for file in files]
    return sum(path.stat().st_size for path in paths if path.exists()) / 1e6

"""The lowest version of each runtime dependency, as pip constraints: `python -m tests.support.floors`."""

from __future__ import annotations

import re
import sys
import tomllib

from tests.support.processes import REPOSITORY

DEPENDENCY = re.compile(r"(?P<name>[\w.-]+)(?P<extras>\[[\w,-]+\])?>=(?P<floor>[\w.]+)")


def floors() -> dict[str, str]:
    """What pyproject.toml allows at the least, by name; a dependency without a floor, or with two, is an error."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    found: dict[str, str] = {}
    for lines in project["optional-dependencies"].values():
        for line in lines:
            if line.startswith(project["name"]):
                continue
            name, floor = named(line)
            if found.setdefault(name, floor) != floor:
                raise ValueError(f"{name} has the floors {found[name]} and {floor}")
    return found


def named(line: str) -> tuple[str, str]:
    """The name and the floor of a line such as `redis>=5.0,<9`."""
    if not (match := DEPENDENCY.match(line)):
        raise ValueError(f"{line!r} has no floor")
    return match["name"], match["floor"]


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=={floor}\n" for name, floor in sorted(floors().items()))

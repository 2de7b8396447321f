"""Every public name appears in a page, and what docs/testing.md and docs/sync.md show runs as it stands there."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module
from pathlib import Path

import pytest

import dispatcher
import workqueue
from tests.support.processes import REPOSITORY, python

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
ROOMS = [
    room.name
    for face in (workqueue, dispatcher)
    for room in pkgutil.walk_packages(face.__path__, f"{face.__name__}.")
    if room.ispkg
]
FACES = ["workqueue", "dispatcher", "dispatcher.testing", *ROOMS]  # a room without names of its own has no __all__


def example(page: str, name: str) -> str:
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- runs: {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found, f"{page} has no example {name}"
    return found[1]


@pytest.mark.parametrize("face", FACES)
def test_every_public_name_appears_in_a_page(face: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)

    names = getattr(import_module(face), "__all__", ())
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []


@pytest.mark.parametrize("name", ["attempt", "idle"])
def test_the_examples_of_the_page_on_testing_are_tests_that_pass(tmp_path: Path, name: str) -> None:
    (tmp_path / "test_example.py").write_text(example("testing.md", name), encoding="utf-8")

    ended = python("-m", "pytest", "-q", "-p", "no:cacheprovider", "test_example.py", cwd=tmp_path)

    assert "1 passed" in ended.out, ended.out


def test_the_synchronous_example_prints_what_it_enqueued(tmp_path: Path) -> None:
    ended = python("-c", example("sync.md", "sync"), cwd=tmp_path)

    assert (ended.out, ended.err) == ("100 keys wait; 10\n", "")

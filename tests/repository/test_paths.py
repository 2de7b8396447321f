"""Every file that a document or a comment names is there, so that a reader who follows it arrives."""

from __future__ import annotations

import importlib
import re
from functools import cache

import pytest

from tests.support.processes import REPOSITORY, ran

NAMED = re.compile(r"(?<![\w/.*<{$-])((?:[\w-]+/)*[\w-]+\.(?:py|lua|proto))(?![\w*])")
DOTTED = re.compile(r"`((?:workqueue|dispatcher)(?:\.\w+)+)")


@cache
def tracked() -> list[str]:
    listed = ran(["git", "ls-files"])
    # A source distribution has no index.
    return listed.out.splitlines() or [str(path.relative_to(REPOSITORY)) for path in REPOSITORY.rglob("*.*")]


def documents() -> list[str]:
    return [path for path in tracked() if path.endswith(".md") and path != "CHANGELOG.md"]


def scripts_and_modules() -> list[str]:
    ours = ("workqueue/", "dispatcher/")
    return [
        path for path in tracked() if path.startswith(ours) and path.endswith((".py", ".lua")) and "_pb2" not in path
    ]


def is_there(name: str) -> bool:
    return any(path == name or path.endswith(f"/{name}") for path in tracked())


def is_known(name: str) -> bool:
    """Whether a dotted name begins with a module of ours, and goes on with what that module has."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)  # type: ignore[assignment]
        return found is not None
    return False


@pytest.mark.parametrize("document", documents())
def test_a_document_names_files_that_are_there(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")

    assert [name for name in NAMED.findall(text) if not is_there(name)] == []


@pytest.mark.parametrize(
    "document", [path for path in documents() if path != "docs/tracing.md"]
)  # spans are dotted too
def test_a_document_names_modules_and_what_they_have(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")

    assert [name for name in DOTTED.findall(text) if not is_known(name)] == []


@pytest.mark.parametrize("path", scripts_and_modules())
def test_a_comment_names_files_that_are_there(path: str) -> None:
    text = (REPOSITORY / path).read_text(encoding="utf-8")

    assert [name for name in NAMED.findall(text) if not is_there(name)] == []

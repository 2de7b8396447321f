"""The docs site has every page, and its navigation leads to each. `make docs` builds it, and checks all links."""

from __future__ import annotations

import re
import runpy
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import REPOSITORY

SITE = REPOSITORY / "docs" / "site"
BUILDER = runpy.run_path(str(SITE / "build.py"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site") / "pages"
    BUILDER["gather"](folder)
    return folder


@pytest.fixture(scope="module")
def navigation(pages: Path) -> list[str]:
    text = BUILDER["configuration"](pages)
    return list(entries(tomllib.loads(text)["project"]["nav"]))


def entries(part: Any) -> Iterator[str]:
    """The pages that a part of the navigation names."""
    if isinstance(part, str):
        yield part
    else:
        for inner in part.values() if isinstance(part, dict) else part:
            yield from entries(inner)


def test_every_entry_of_the_navigation_is_a_page(pages: Path, navigation: list[str]) -> None:
    assert [entry for entry in navigation if not (pages / entry).is_file()] == []


def test_every_page_of_the_docs_is_in_the_navigation(pages: Path, navigation: list[str]) -> None:
    written = {str(page.relative_to(REPOSITORY / "docs")) for page in (REPOSITORY / "docs").rglob("*.md")}

    assert {page.replace("README.md", "index.md") for page in written} - set(navigation) == set()


def test_a_link_that_leaves_the_docs_arrives_on_a_page(pages: Path) -> None:
    text = (pages / "schedules.md").read_text(encoding="utf-8")

    found = re.search(r"\]\((examples/schedules\.py\.md)\)", text)

    assert found, "docs/schedules.md does not link to its example any more"
    assert "```python" in (pages / found[1]).read_text(encoding="utf-8")


def test_a_link_to_nothing_stops_the_build(tmp_path: Path) -> None:
    page = tmp_path / "page.md"

    with pytest.raises(FileNotFoundError, match=r"page.md links to gone.md, which is not there"):
        list(BUILDER["linked"](page, "see [it](gone.md#part)"))


def test_the_reference_has_every_public_name(pages: Path) -> None:
    text = (pages / "reference" / "workqueue.rpc.md").read_text(encoding="utf-8")

    assert "::: workqueue.rpc.connect\n" in text


def test_the_reference_has_every_module_that_a_page_imports_from(pages: Path) -> None:
    imported = re.compile(r"^ *from ((?:workqueue|dispatcher)[\w.]*) import", re.MULTILINE)

    shown = {room for page in (REPOSITORY / "docs").glob("*.md") for room in imported.findall(page.read_text())}

    assert len(shown) > 10
    assert [room for room in sorted(shown) if not (pages / "reference" / f"{room}.md").is_file()] == []


@pytest.mark.parametrize(
    "text",
    [
        '<script async src="https://cdn.example/mermaid.js">',
        "<img alt=x src=//badges.example/passing.svg>",
        '<link rel="stylesheet" href="https://fonts.example/css?family=Roboto">',
        "@import 'https://fonts.example/inter.css';",
        "<style>b { background: url(https://cdn.example/b.png) }</style>",
        '<pre class="mermaid"><code>flowchart LR',
    ],
)
def test_a_page_that_fetches_from_another_site_is_found(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.html").write_text(f"<p>good</p>{text}", encoding="utf-8")

    assert len(list(BUILDER["fetched"](tmp_path))) == 1


def test_links_elsewhere_and_files_of_the_site_are_no_fetches(tmp_path: Path) -> None:
    own = '<script src="../bundle.js"></script><img src="images/a.svg"><link rel="stylesheet" href="main.css">'
    away = '<a href="https://keda.sh">KEDA</a><link rel="canonical" href="https://docs.example/page/">'
    (tmp_path / "page.html").write_text(own + away + "<p>the class of mermaid drawings</p>", encoding="utf-8")

    assert list(BUILDER["fetched"](tmp_path)) == []

"""What docs/ say of each extra, held to pyproject.toml and to what is installed."""

from __future__ import annotations

import re

import pytest

from tests.support.distributions import EXTRAS, brought_by, megabytes, named_by
from tests.support.processes import REPOSITORY

BACK_PORTS = {"async-timeout"}  # redis needs it before Python 3.11.3; the page does not count it
FEWER = 2  # a later Python needs fewer back-ports; a release that brings more than the table says is news
PART = 0.25  # how far a release of theirs may be from the size that the table says


def rows(page: str) -> list[list[str]]:
    """The cells of each row of a page's tables whose first cell names extras."""
    lines = (REPOSITORY / "docs" / page).read_text(encoding="utf-8").splitlines()
    tables = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `[")]
    return [cells for cells in tables if re.fullmatch(r"(`\[\w+\]`(, )?)+", cells[0])]


def test_the_page_on_installing_lists_every_extra_and_no_other() -> None:
    assert sorted(cells[0] for cells in rows("install.md")) == sorted(f"`[{extra}]`" for extra in EXTRAS)


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_the_page_on_installing_says(extra: str) -> None:
    (cells,) = [cells for cells in rows("install.md") if cells[0] == f"`[{extra}]`"]
    distributions, size = int(cells[2]), float(cells[3])

    brought = brought_by(extra) - BACK_PORTS

    assert distributions - FEWER <= len(brought) <= distributions, sorted(brought)
    assert megabytes(brought) == pytest.approx(size, rel=PART, abs=0.1)


@pytest.mark.parametrize("extra", [extra for extra in EXTRAS if named_by(extra)])
def test_the_design_notes_give_a_reason_for_each_dependency_of_an_extra(extra: str) -> None:
    stands_on = " ".join(cells[1].lower() for cells in rows("design-notes.md") if f"`[{extra}]`" in cells[0])

    assert {name for name in named_by(extra) if not re.search(rf"(?<![\w-]){name}\b", stands_on)} == set()

"""docs/planted-bugs.md, written from the bugs themselves: `python -m tests.planted.table`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.planted.dispatching import DISPATCH_BUGS
from tests.planted.limits import LIMIT_BUGS
from tests.planted.pages import PAGE_BUGS
from tests.planted.places import PLACE_BUGS
from tests.planted.planting import FAMILIES, Bug
from tests.planted.rules import RULE_BUGS
from tests.planted.serving import SERVER_BUGS
from tests.planted.vocabulary import VOCABULARY_BUGS
from tests.support.backends import BACKENDS
from workqueue.conformance import all_scenarios

__all__ = ["PAGE", "page"]

_CAUGHT_BY_TESTS = {
    "In the dispatcher": DISPATCH_BUGS,
    "In renewal, on the wire, in settles, rules, texts and stores": VOCABULARY_BUGS,
    "At the doors": SERVER_BUGS,
}

PAGE = Path(__file__).resolve().parents[2] / "docs" / "planted-bugs.md"

_INTRODUCTION = """\
# Planted bugs

A suite that passes proves little until it has been seen to fail. Each line below is a mistake somebody could make. A
test run makes it, by replacing a few characters of a rule, a statement or a script for a moment (`tests/planted/`), and
checks that the named scenario objects, on every backend that can have the bug at all. An edit that does not fit its
place any more fails the run, so that no bug fades away as the code changes.

This page is written by `python -m tests.planted.table`, and a test holds it to the bugs.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_score(), *_bugs_of_queues(), *_bugs_that_tests_catch(), ""])


def _score() -> Iterator[str]:
    bugs = [*RULE_BUGS, *PLACE_BUGS, *PAGE_BUGS, *LIMIT_BUGS]
    everywhere = sum(len(_backends_with(bug)) for bug in bugs)
    bugs_of_tests = sum(map(len, _CAUGHT_BY_TESTS.values()))
    planted = f"Planted: {len(bugs)} in queues, on {everywhere} backends in all, and {bugs_of_tests} elsewhere."
    yield f"{planted} Caught: all of them."
    yield "An assertion has to object; a scenario that merely takes too long does not count."
    yield ""


def _bugs_of_queues() -> Iterator[str]:
    bugs = [*RULE_BUGS, *PLACE_BUGS, *PAGE_BUGS, *LIMIT_BUGS]
    yield f"## In a queue ({len(bugs)})"
    yield ""
    yield "| the bug | the scenario that catches it | on |"
    yield "|---|---|---|"
    for bug in bugs:
        yield f"| {bug.name} | {bug.caught_by} | {', '.join(_backends_with(bug))} |"


def _backends_with(bug: Bug) -> list[str]:
    """Those that can have it: a backend without concurrency limits of its own cannot break them."""
    needs = next(scenario.needs for scenario in all_scenarios() if scenario.name == bug.caught_by)
    able = [backend for backend in BACKENDS if backend.name in FAMILIES and not needs & backend.lacks]
    return [backend.name for backend in able if bug.edits_for(backend)]


def _bugs_that_tests_catch() -> Iterator[str]:
    for title, bugs in _CAUGHT_BY_TESTS.items():
        yield ""
        yield f"## {title} ({len(bugs)})"
        yield ""
        yield "| the bug | the test that catches it |"
        yield "|---|---|"
        for bug in bugs:
            yield f"| {bug.name} | {bug.caught_by.partition(':test_')[2].replace('_', ' ')} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

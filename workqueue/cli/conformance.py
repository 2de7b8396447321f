"""The command that puts a backend to the test: conformance."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Annotated, cast

import typer

from workqueue.backends import open_queue
from workqueue.errors import InvalidSettingError
from workqueue.programs import printing
from workqueue.programs.ending import FAILED
from workqueue.programs.flags import with_flags
from workqueue.programs.imported import imported
from workqueue.programs.logs import configure_logging
from workqueue.programs.progress import progress
from workqueue.programs.settings import OutputFlags

if TYPE_CHECKING:
    from workqueue.conformance import Result, Target

__all__ = ["conformance"]

_Place = Annotated[str, typer.Argument(metavar="URL", help="a queue URL, or package.module:name of a Target of yours")]


@with_flags
def conformance(place: _Place, output: OutputFlags) -> int:
    """Find out whether a backend keeps its promises.

    Every scenario runs in a queue of its own, which is emptied afterwards. Exits with 1 if one of them failed.
    """
    from workqueue.conformance import report

    configure_logging("critical", "text")  # leases are lost and stores fail here on purpose
    results = asyncio.run(_results(place))
    if output.json:
        printing.document(report(results))
    else:
        printing.listing(report(results)["scenarios"])
        counted = Counter(result.status for result in results)
        printing.note(", ".join(f"{number} {status}" for status, number in sorted(counted.items())))
    return FAILED if any(result.status == "failed" for result in results) else 0


async def _results(place: str) -> list[Result]:
    from workqueue.conformance import URLTarget

    if "://" not in place:
        return await _run(_target(place))
    async with open_queue(place) as queue:  # a store that is down is said once, not by every scenario
        await queue.enumerate(0)
    return await _run(URLTarget(place))


async def _run(target: Target) -> list[Result]:
    """All scenarios; somebody at a terminal sees how far they have come."""
    from workqueue.conformance import all_scenarios, run_all

    with progress("scenarios run", len(all_scenarios())) as advance:
        return await run_all(target, lambda ended: advance(1))


def _target(place: str) -> Target:
    found = imported("URL", place)
    target = found() if callable(found) else found
    if not hasattr(target, "open"):
        raise InvalidSettingError(f"URL: {place} is neither a queue URL nor a workqueue.conformance.Target")
    return cast("Target", target)

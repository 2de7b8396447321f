"""For commands about many keys: which ones are meant, by filters, and those of some states that match, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from workqueue.clock import from_us
from workqueue.equipment import Equipment
from workqueue.errors import InvalidSettingError
from workqueue.fallbacks import FullQueue
from workqueue.options import MAX_PRIORITY
from workqueue.paging import ListedKey, Place
from workqueue.programs.converters import DURATION, RATE, whole
from workqueue.programs.flags import Flag
from workqueue.searching import Filter
from workqueue.sweeping import found_before

__all__ = ["ChosenFlags", "ExtentFlags", "check_one_way", "matching"]


@dataclass(frozen=True, slots=True)
class ChosenFlags:
    """Which keys; all that is given must hold."""

    prefix: Annotated[str, Flag("keys that start so")] = ""
    priority: Annotated[int | None, Flag("keys of this priority", takes=whole(-MAX_PRIORITY, MAX_PRIORITY))] = None
    min_attempts: Annotated[int, Flag("keys that were started N times or more", takes=whole(0))] = 0
    older_than: Annotated[timedelta | None, Flag("keys in this state for longer than this", takes=DURATION)] = None
    error: Annotated[str, Flag("keys whose error, or last one, contains this text")] = ""

    @property
    def filter(self) -> Filter:
        """Which keys are meant."""
        return Filter(self.prefix, self.priority, self.min_attempts, self.older_than, self.error)


@dataclass(frozen=True, slots=True)
class ExtentFlags:
    """How far to go, and how fast."""

    all: Annotated[bool, Flag("every key that this is for", spell_out=True)] = False
    rate: Annotated[float | None, Flag("how many at most, such as 10/s", takes=RATE)] = None
    dry_run: Annotated[bool, Flag("only count the keys that are meant")] = False


def check_one_way(named: bool, chosen: ChosenFlags, extent: ExtentFlags) -> None:
    """See to it that keys are named, or chosen, or all are meant.

    Raises:
        InvalidSettingError: it is said in several ways, or in none.
    """
    if [named, chosen.filter.is_given(), extent.all].count(True) != 1:
        raise InvalidSettingError(
            "say which keys in one way: KEY…, or --prefix, --priority, --min-attempts, --older-than, --error, or --all"
        )


async def matching(queue: FullQueue, places: Sequence[Place], wanted: Filter) -> AsyncIterator[ListedKey]:
    """The handles of what matches, page by page; none of a key that came to where it is after this began."""
    began = from_us(Equipment.of(queue).clock.wall_us())
    for place in places:
        async for found in found_before(queue, place, wanted, began):
            for key in found.keys:
                yield key

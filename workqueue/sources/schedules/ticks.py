"""Stage 1: when a schedule ticks (pure): cron lines in a time zone, and intervals.

A line that names hours is read on the wall clock. In the hour that is repeated when clocks go back it ticks once, at
the first pass; what lies in the hour that is left out ticks right after the gap, once. A line for every hour goes by
the time that passes: it ticks in both passes and has nothing to make up for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from workqueue.extras import importing

with importing("schedules", "a schedule"):
    from cronsim import CronSim, CronSimError

from workqueue.clock import LATEST_US, duration_us, from_us, to_us
from workqueue.errors import InvalidSettingError

__all__ = ["Cron", "Every", "Ticks", "parse_ticks", "parse_zone"]

_NAMED = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_TAKES = "it takes five cron fields such as '30 2 * * *', one of @hourly … @yearly, or '@every 90s'"
_MILLENNIUM_US = 946_684_800_000_000
_REMEMBERED = 16  # ticks found, for one line: many schedules that tick together ask for the same
_NEVER_US = 1 << 63
_MINUTE = timedelta(minutes=1)


class Ticks(Protocol):
    """The ticks of one schedule, in microseconds since the epoch."""

    def after(self, us: int) -> int | None:
        """The first tick after `us`; None if there is none within 50 years."""


@dataclass(frozen=True, slots=True)
class Every:
    """A tick every `period_us` microseconds, counted from `anchor_us`."""

    period_us: int
    anchor_us: int

    def after(self, us: int) -> int | None:
        return self.anchor_us + ((us - self.anchor_us) // self.period_us + 1) * self.period_us


class Cron:
    """The ticks of a cron line of five fields in `zone`.

    Raises:
        InvalidSettingError: it is no cron line, or it never ticks.
    """

    def __init__(self, line: str, zone: ZoneInfo) -> None:
        fields = line.split()
        if len(fields) != 5:
            raise InvalidSettingError(f"{line!r}: {_TAKES}")
        self._line = " ".join(fields)
        self._zone = zone
        self._every_hour = fields[1] in ("*", "*/1")
        self._found: dict[int, int] = {}  # each tick, and since when there was none
        try:
            never = self._find(_MILLENNIUM_US) is None
        except CronSimError as error:
            raise InvalidSettingError(f"{line!r} is no cron line, or never fires: {error}; {_TAKES}") from error
        if never:
            raise InvalidSettingError(f"{line!r} never fires: no day within 50 years is like that")

    def after(self, us: int) -> int | None:
        # Schedules that were declared one after the other ask from moments that differ, for the same tick.
        for known_us, since_us in self._found.items():
            if since_us <= us < known_us:
                return known_us if known_us < _NEVER_US else None
        tick_us = self._find(us)
        if len(self._found) >= _REMEMBERED:
            self._found.clear()
        self._found[_NEVER_US if tick_us is None else tick_us] = us
        return tick_us

    def _find(self, us: int) -> int | None:
        if us >= LATEST_US:  # no tick is told from a later one, and the search would go through 50 years
            return None
        local = from_us(us).astimezone(self._zone)
        start = local if self._every_hour else local.replace(tzinfo=None, fold=0)
        for found in CronSim(self._line, start):
            tick_us = to_us(found if self._every_hour else self._placed(found))
            if tick_us > us:  # else it is one of the first pass, and we are in the second
                return tick_us
        return None

    def _placed(self, wall: datetime) -> datetime:
        """When the wall clock first shows `wall`; where it never does, the end of the gap."""
        moment = wall.replace(tzinfo=self._zone, fold=0)
        while moment.astimezone(UTC).astimezone(self._zone) != moment:
            moment += _MINUTE
        return moment


def parse_ticks(when: str, zone: str, anchor_us: int) -> Ticks:
    """The ticks that `when` describes.

    Args:
        when: five cron fields, `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`, or `@every 1h30m`.
        zone: an IANA name, such as `Europe/Berlin`; an interval does not heed it.
        anchor_us: from when an interval is counted.

    Raises:
        InvalidSettingError: it is none of these, or it never ticks.
    """
    word, _, rest = when.strip().partition(" ")
    if word == "@every":
        return Every(_period_us(rest.strip()), anchor_us)
    return _cron(_NAMED.get(when.strip(), when), zone)


@lru_cache(maxsize=4096)
def _cron(line: str, zone: str) -> Cron:
    """One for all schedules with this line: reading it takes as long as finding a tick."""
    return Cron(line, parse_zone(zone))


def parse_zone(name: str) -> ZoneInfo:
    """The time zone called `name`.

    Raises:
        InvalidSettingError: there is none, or this machine has no time zones at all.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidSettingError(
            f"there is no time zone {name!r}; it takes an IANA name such as Europe/Berlin or UTC. "
            "A machine without time zones needs the package tzdata"
        ) from error


@lru_cache(maxsize=4096)
def _period_us(text: str) -> int:
    if not re.fullmatch(f"({_PART.pattern})+", text):
        raise InvalidSettingError(f"'@every {text}': it takes a duration such as 90s or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 1 <= seconds <= 366 * 86400:
        raise InvalidSettingError(f"'@every {text}': it takes a duration from 1s to 366d")
    return duration_us(timedelta(seconds=seconds))

"""Stage 1: schedules declared in a TOML file: a table for each, named as the schedule is (see docs/schedules.md)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from workqueue.backends.url import duration
from workqueue.errors import InvalidSettingError
from workqueue.sources.schedules.schedule import Schedule

__all__ = ["read_schedules"]

_TYPES: Mapping[str, type] = {
    "when": str,
    "key": str,
    "zone": str,
    "priority": int,
    "payload": str,
    "meta": dict,
    "jitter": str,
    "missed": str,
}


def read_schedules(path: Path) -> list[Schedule]:
    """The schedules that the file declares.

    A table has `when` and `key`, and may have `zone`, `priority`, `payload` (text), `meta` (a table of texts), `jitter`
    (such as "30s") and `missed` ("once", "skip" or "all").

    Raises:
        InvalidSettingError: the file cannot be read, or a schedule in it is none; the message names both.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidSettingError(f"{path} cannot be read as TOML: {error}") from error
    schedules: list[Schedule] = []
    for name, table in tables.items():
        try:
            schedules.append(_schedule(name, table))
        except ValueError as error:
            raise InvalidSettingError(f"{path}: schedule {name!r}: {error}") from error
    return schedules


def _schedule(name: str, table: object) -> Schedule:
    if not isinstance(table, dict):
        raise ValueError("it is a value; a schedule is a table, such as [nightly]")
    for field, value in table.items():
        if field not in _TYPES:
            raise ValueError(f"it has {field!r}; it takes {', '.join(_TYPES)}")
        if not isinstance(value, _TYPES[field]) or isinstance(value, bool):
            raise ValueError(f"{field} is a {_TYPES[field].__name__}, not {value!r}")
    for field in ("when", "key"):
        if field not in table:
            raise ValueError(f"it has no {field!r}")
    return Schedule(name, **{field: _converted(field, value) for field, value in table.items()})


def _converted(field: str, value: Any) -> Any:
    if field == "payload":
        return value.encode()
    if field != "jitter":
        return value
    try:
        return duration(value) if value not in ("0", "0s") else timedelta(0)
    except ValueError as error:
        raise ValueError(f"jitter: {error}") from error

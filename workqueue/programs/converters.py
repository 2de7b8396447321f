"""For programs: what a setting takes. A converter refuses a value by a ValueError that says what it takes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from workqueue.backends.url import duration

__all__ = [
    "CONTENT",
    "DURATION",
    "DURATION_OR_ZERO",
    "FILE",
    "MOMENT",
    "PAIR",
    "RATE",
    "SWITCH",
    "TEXT",
    "URL",
    "Converter",
    "choice",
    "listed",
    "number",
    "spoken",
    "whole",
]

_MOST = 2**31 - 1
_PER_SECOND = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Converter:
    """What one setting takes: its name in `--help`, and how its text becomes a value (ValueError: it does not)."""

    metavar: str
    convert: Callable[[str], Any]


def whole(least: int, most: int = _MOST) -> Converter:
    """A whole number from `least` to `most`."""

    def convert(text: str) -> int:
        value = int(text) if re.fullmatch(r"[+-]?\d{1,20}", text) else None
        if value is None or not least <= value <= most:
            range_ = f"{least} or more" if most == _MOST else f"from {least} to {most}"
            raise ValueError(f"it takes a whole number, {range_}")
        return value

    return Converter("NUMBER", convert)


def number(text: str) -> float:
    """A number above zero. Raises ValueError."""
    if not re.fullmatch(r"\d+(\.\d+)?", text) or float(text) == 0:
        raise ValueError("it takes a number above zero")
    return float(text)


def choice(*allowed: str) -> Converter:
    """One of a few words."""

    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"it takes {', '.join(allowed[:-1])} or {allowed[-1]}")
        return text

    return Converter("|".join(allowed), convert)


def listed(metavar: str) -> Converter:
    """Values separated by commas, at least one."""

    def convert(text: str) -> tuple[str, ...]:
        values = tuple(part.strip() for part in text.split(","))
        if not all(values):
            raise ValueError(f"it takes {metavar} values separated by commas, none of them empty")
        return values

    return Converter(f"{metavar},…", convert)


def spoken(value: timedelta) -> str:
    """A duration as a setting would say it: 15s, 500ms, 1h."""
    seconds = value.total_seconds()
    if seconds == 0:
        return "0s"
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{int(seconds // length)}{unit}"
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.utcoffset() is None:
        raise ValueError("it takes an ISO 8601 time with a zone, such as 2030-01-31T12:00:00Z")
    return moment


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ValueError("it takes name=value")
    return name, value


def _rate(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(?:/(s|m|h))?", text)
    if not found or float(found[1]) == 0:
        raise ValueError("it takes a rate above zero such as 10/s or 600/m")
    return float(found[1]) / _PER_SECOND[found[2] or "s"]


def _content(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"it takes a file that can be read ({error.strerror})") from error


def _switch(text: str) -> bool:
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in known:
        raise ValueError("it takes true or false")
    return known[text.lower()]


SWITCH = Converter("", _switch)
TEXT = Converter("TEXT", str)


def _duration_or_zero(text: str) -> timedelta:
    return timedelta(0) if re.fullmatch(r"0(ms|s|m|h|d)?", text) else duration(text)


DURATION = Converter("DURATION", duration)
DURATION_OR_ZERO = Converter("DURATION", _duration_or_zero)
MOMENT = Converter("TIME", _moment)
PAIR = Converter("NAME=VALUE", _pair)
RATE = Converter("RATE", _rate)
CONTENT = Converter("FILE", _content)
FILE = Converter("FILE", Path)
URL = Converter("URL", str)

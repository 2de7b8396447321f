"""The `settings` of each program in the chart's schema, read from the flags that the program takes."""

from __future__ import annotations

from dataclasses import Field
from datetime import timedelta
from typing import Any

from dispatcher.environment import DispatchFlags, EventFlags, ScheduleFileFlags, TargetFlags
from dispatcher.relay.environment import RelayFlags, TargetCallFlags
from workqueue.cli.console import ShownFlags
from workqueue.cli.keys import ReceiverFlags
from workqueue.cli.receivers import ShardFlags
from workqueue.cli.resync import ListingFlags
from workqueue.cli.subscribe import KeyFlags, SQSFlags
from workqueue.cli.watch import WatchFlags
from workqueue.programs.access import CallFlags, ListenFlags
from workqueue.programs.console import ConsoleFlags
from workqueue.programs.flags import Flag, flags_of
from workqueue.programs.settings import LogFlags

__all__ = ["PROGRAMS", "settings_of", "shared_settings"]

_DISPATCHES = [TargetFlags, DispatchFlags, EventFlags, CallFlags]
_SERVES = [ListenFlags, LogFlags]
PROGRAMS: dict[str, list[type]] = {
    "receiver": [ListenFlags, LogFlags],
    "dispatcher": [*_DISPATCHES, ListenFlags, LogFlags],
    "hyperqueue": [ShardFlags, CallFlags, ListenFlags, LogFlags],
    "watch": [WatchFlags, ReceiverFlags, *_SERVES],
    "subscribe": [KeyFlags, SQSFlags, ReceiverFlags, *_SERVES],
    "resync": [ListingFlags, ReceiverFlags, *_SERVES],
    "scaler": _SERVES,
    "console": [ShownFlags, ConsoleFlags, *_SERVES],
    "schedules": [ScheduleFileFlags, EventFlags, *_SERVES],
    "relay": [RelayFlags, EventFlags, TargetCallFlags, *_SERVES],
}
"""The groups of flags of each program that the chart can run."""

# What the chart says itself: where to listen, which Secrets to read, who the Pod is.
_THE_CHARTS = {
    "--host", "--insecure", "--probe-port", "--tls-cert", "--tls-key", "--tls-client-ca", "--accept-tokens", "--owner",
    "--ca", "--client-cert", "--client-key", "--token-file", "--shards", "--once",
    "--queue", "--http-port", "--viewer-tokens", "--oidc-client-secret",
}  # fmt: skip

_DURATION = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"


def settings_of(program: str) -> dict[str, Any]:
    """The schema of `settings` for a program: each flag in camelCase, with its help and what it takes."""
    properties = {
        _camel(name): {"description": flag.help, **_takes(field, flag)}
        for group in PROGRAMS[program]
        for field, name, flag in flags_of(group)
        if name not in _THE_CHARTS
    }
    return {"type": "object", "additionalProperties": False, "properties": dict(sorted(properties.items()))}


def shared_settings() -> dict[str, Any]:
    """The schema of the settings that every program takes alike: those of `defaults`."""
    first, *rest = (settings_of(program)["properties"] for program in PROGRAMS)
    shared = {name: takes for name, takes in first.items() if all(other.get(name) == takes for other in rest)}
    return {"type": "object", "additionalProperties": False, "properties": shared}


def _camel(flag: str) -> str:
    first, *rest = flag.removeprefix("--").split("-")
    return first + "".join(part.capitalize() for part in rest)


def _takes(field: Field[Any], flag: Flag) -> dict[str, Any]:
    if field.default is False:
        return {"type": "boolean"}
    if isinstance(field.default, timedelta):
        return {"type": "string", "pattern": _DURATION}
    if isinstance(field.default, tuple):
        return {"type": "array", "items": {"type": "string", "minLength": 1}}
    if flag.takes.metavar == "NUMBER":
        return {"type": "integer", "minimum": _least(flag)}
    if "|" in flag.takes.metavar and flag.takes.metavar.islower():  # the words themselves; URL|FILE are kinds of text
        return {"enum": flag.takes.metavar.split("|")}
    return {"type": "string"}


def _least(flag: Flag) -> int:
    """The least number that a flag takes: its own converter is asked."""
    try:
        flag.takes.convert("0")
    except ValueError:
        return 1
    return 0

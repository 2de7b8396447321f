"""What docs/operating.md says of settings is what the programs take; and the commands start fast."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from dispatcher.environment import DispatchFlags, EventFlags, RunPorts, ScheduleFlags, ServePorts, TargetFlags
from dispatcher.relay.environment import AddressFlags, RelayFlags, StoreFlags
from tests.support.processes import REPOSITORY, python
from tests.support.programs import workqueue
from workqueue.cli.receivers import PortFlags, ShardFlags
from workqueue.cli.sources import SourcePort
from workqueue.cli.subscribe import EventPort, SQSFlags
from workqueue.cli.watch import ClusterFlags
from workqueue.programs.access import CallFlags, ListenFlags
from workqueue.programs.converters import spoken
from workqueue.programs.ending import EXIT_CODES
from workqueue.programs.flags import flags_of
from workqueue.programs.settings import LogFlags, OutputFlags, QueueFlags

GUIDE = (REPOSITORY / "docs/operating.md").read_text(encoding="utf-8")
GROUPS: dict[str, list[type]] = {
    "Every command": [QueueFlags],
    "Commands that write results": [OutputFlags],
    "What a dispatcher calls, and how": [TargetFlags, DispatchFlags, EventFlags],
    "Schedules beside a dispatcher": [ScheduleFlags],
    "Servers": [ServePorts, ListenFlags, LogFlags],
    "Calls to receivers, reconcilers and shards": [CallFlags],
    "`workqueue hyperqueue`": [ShardFlags],
    "`workqueue watch`": [ClusterFlags],
    "`workqueue subscribe`": [SQSFlags],
    "`dispatcher relay`": [StoreFlags, RelayFlags, AddressFlags],
}


def settings_table() -> Iterator[str]:
    for title, groups in GROUPS.items():
        yield f"| **{title}** | | | |"
        for group in groups:
            for field, name, flag in flags_of(group):
                variables = ", ".join(f"`{variable}`" for variable in flag.env)
                default = spoken(field.default) if isinstance(field.default, timedelta) else str(field.default)
                known = "" if field.default in (None, False, "", ()) else f"; default {default}"
                takes = "" if field.default is False else flag.takes.metavar.replace("|", " or ")
                yield f"| `{name}` | {variables} | {takes} | {flag.help}{known} |"


def test_the_operating_guide_lists_every_setting() -> None:
    table = ["| flag | variable | takes | what |", "|---|---|---|---|", *settings_table()]

    listed = GUIDE.partition("<!-- settings -->\n")[2].partition("<!-- /settings -->")[0]

    assert listed.strip().splitlines() == table


@pytest.mark.parametrize("group", [PortFlags, RunPorts, SourcePort, EventPort])
def test_ports_have_the_same_names_in_every_server(group: type) -> None:
    known = {name: field.default for field, name, _ in flags_of(ServePorts)}

    assert {name: field.default for field, name, _ in flags_of(group)}.items() <= known.items()


def test_every_exit_code_is_in_the_guide_and_in_the_help() -> None:
    for code in ("0", "1", "2", "75", "130"):
        assert f"\n| {code} | " in GUIDE
        assert f"{code} " in EXIT_CODES
    assert "Exit codes" in workqueue("--help").out


@pytest.mark.parametrize("program", ["workqueue.cli.app", "dispatcher.cli"])
def test_help_imports_no_driver_and_no_server(program: str) -> None:
    heavy = {"grpc", "aiohttp", "starlette", "uvicorn", "redis", "sqlite3", "prometheus_client", "rich"}
    asked = f"import sys, {program}; print([name for name in {heavy} if name in sys.modules])"

    answer = python("-c", asked)

    assert answer.out.strip() == "[]"

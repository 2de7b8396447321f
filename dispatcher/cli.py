"""The `dispatcher` program: serve (all in one), run (no receiver), schedules and relay."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.environment import (
    DispatchFlags,
    EventFlags,
    RunPorts,
    ScheduleFileFlags,
    ScheduleFlags,
    ServePorts,
    TargetFlags,
)
from dispatcher.relay.environment import RelayFlags, RelayListen, StoreFlags, TargetCallFlags, note_what_is_ignored
from workqueue.equipment import Equipment
from workqueue.errors import InvalidSettingError
from workqueue.extras import require
from workqueue.programs import printing
from workqueue.programs.access import CallFlags, ListenFlags
from workqueue.programs.completion import completion_of
from workqueue.programs.console import ConsoleFlags
from workqueue.programs.ending import EXIT_CODES, common, program, run_server
from workqueue.programs.flags import Flag, naming, with_flags
from workqueue.programs.logs import configure_logging
from workqueue.programs.settings import LogFlags, OutputFlags, QueueFlags

if TYPE_CHECKING:
    from dispatcher.process import Process
    from dispatcher.relay.process import Relay
    from workqueue.fallbacks import FullQueue
    from workqueue.web.console import Console
    from workqueue.web.console.watched import AskDispatchers

    MakeConsole = Callable[[FullQueue, AskDispatchers], Console]

_ATTEMPTS = (1, 2, 5, 20)
_Bounds = dict[int, tuple[timedelta, timedelta]]

app = typer.Typer(
    name="dispatcher",
    help="Call a reconciler for the keys of a queue.",
    epilog=EXIT_CODES,
    add_completion=False,
    rich_markup_mode=None,  # plain help starts three times as fast, and pipes well
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "DISPATCHER", "help_option_names": ["-h", "--help"]},
)
app.callback()(common)


@dataclass(frozen=True, slots=True)
class Work:
    """The settings of every dispatcher process."""

    target: TargetFlags
    queue: QueueFlags
    dispatch: DispatchFlags
    events: EventFlags
    calls: CallFlags
    schedules: ScheduleFlags

    def process(self, *, memory: bool = False, console: MakeConsole | None = None) -> Process:
        """The process to run; whatever can be wrong about it is found here."""
        from dispatcher.process import Process

        url = self.queue.url(memory=memory)
        events = self.events.sinks(self.calls.security)
        callback, settings = self.target.opened(self.calls, self.events.events_name), self.dispatch.settings()
        schedules = self.schedules.fired(url, self.dispatch.owner)
        return Process(url, self.dispatch.owner, callback, settings, events, os.environ, schedules, console=console)


@dataclass(frozen=True, slots=True)
class RoundFlags:
    """When rounds run, where no loop does."""

    once: Annotated[bool, Flag("run one round, serve nothing, and exit", ("WORKQUEUE_ONCE",))] = False
    no_loop: Annotated[
        bool,
        Flag("run rounds only when asked over HTTP, for services that sleep between calls", ("WORKQUEUE_NO_LOOP",)),
    ] = False

    def __post_init__(self) -> None:
        if self.once and self.no_loop:
            raise InvalidSettingError("--once and --no-loop: give one of them")


@dataclass(frozen=True, slots=True)
class ReloadFlags:
    """What is for developers alone."""

    reload: Annotated[
        bool, Flag("while developing: drain and start again when the callback's package changes", spell_out=True)
    ] = False


@dataclass(frozen=True, slots=True)
class OwnConsoleFlags:
    """The console of the process itself."""

    how: ConsoleFlags
    console: Annotated[bool, Flag("show the queue in the browser, at /console/", ("WORKQUEUE_CONSOLE",))] = False

    def made(self, listen: ListenFlags) -> MakeConsole | None:
        """What makes the console; None = there is none. Whatever can be wrong about it is found here."""
        if not self.console:
            return None
        require("console", "--console")
        from workqueue.web.console import Console

        settings, (admission, login) = self.how.settings(listen), self.how.admission(listen)
        return lambda queue, ask: Console({Equipment.of(queue).name: queue}, settings, admission, login, ask)


@app.command("serve")
@with_flags
def serve(
    work: Work, listen: ListenFlags, ports: ServePorts, logs: LogFlags, develop: ReloadFlags, shown: OwnConsoleFlags
) -> int:
    """Run receiver, loop and trigger in one process.

    Keys come in over gRPC; GET or POST / starts a round; /healthz, /readyz and /metrics are beside it. SIGTERM and
    SIGINT drain, a second one cancels.
    """
    configure_logging(logs.log_level, logs.log_format)
    if develop.reload:
        return _reloaded(work)
    process = work.process(memory=True, console=shown.made(listen))
    run_server(process.serve(listen.front(ports.http_port), ports.grpc_port))
    return 0


def _reloaded(work: Work) -> int:
    """Run the same command line without --reload as a process of its own, again and again; returns its exit code."""
    from dispatcher.reload import Reloader, sources_of

    folder = sources_of(work.target.callback)
    if work.queue.url(memory=True).startswith("memory:"):
        raise InvalidSettingError(
            "--reload would lose a queue of memory:// at each change: give --queue sqlite:///FILE"
        )
    arguments = [each for each in sys.argv[1:] if each != "--reload"]
    return Reloader([sys.executable, "-m", "dispatcher.cli", *arguments], folder, os.environ).run()


@app.command("run")
@with_flags
def run(work: Work, listen: ListenFlags, ports: RunPorts, logs: LogFlags, rounds: RoundFlags) -> None:
    """Run loop and trigger, without a receiver.

    For a queue that is filled by others. With --once it runs one round and exits, for cron jobs; with --no-loop it runs
    one for each call of its URL.
    """
    configure_logging(logs.log_level, logs.log_format)
    process = work.process()
    if rounds.once:
        run_server(process.once())
        return
    front = listen.front(ports.http_port)
    run_server(process.answer(front) if rounds.no_loop else process.serve(front, None))


@dataclass(frozen=True, slots=True)
class ScheduleWork:
    """What a process that fires schedules is given."""

    queue: QueueFlags
    file: ScheduleFileFlags
    events: EventFlags
    calls: CallFlags
    owner: Annotated[str, Flag("recorded with schedules that are being fired", ("WORKQUEUE_OWNER",))] = ""

    def process(self) -> Process:
        """The process to run; whatever can be wrong about it is found here."""
        from dispatcher.process import Process
        from dispatcher.schedules import FIRING, Schedules

        events = self.events.sinks(self.calls.security)
        fired = Schedules.of(self.queue.url(), self.file.schedules_file, self.owner)
        return Process(fired.own_url, self.owner, fired.callback(), FIRING, events, os.environ, sources=[fired.metrics])


@app.command("schedules")
@with_flags
def schedules(work: ScheduleWork, listen: ListenFlags, ports: RunPorts, logs: LogFlags) -> None:
    """Fire the schedules of a queue.

    Run as many as you like: each tick is fired by one of them. `workqueue schedules` adds, lists and removes schedules.
    """
    configure_logging(logs.log_level, logs.log_format)
    process = work.process()
    run_server(process.serve(listen.front(ports.http_port), None))


@dataclass(frozen=True, slots=True)
class RelayWork:
    """What a process that relays is given."""

    store: StoreFlags
    relay: RelayFlags
    events: EventFlags
    calls: TargetCallFlags

    def process(self) -> Relay:
        """The process to run; whatever can be wrong about it is found here."""
        from dispatcher.relay.outcomes import OUTCOME_BYTES
        from dispatcher.relay.process import Relay
        from dispatcher.relay.target import AllowedTargets

        security = self.calls.security()
        events = self.events.sinks(lambda _: security)
        settings = self.relay.settings()
        urls = self.store.urls(settings.max_payload, OUTCOME_BYTES)
        with naming("--allow-target or WORKQUEUE_ALLOW_TARGET"):
            allowed = AllowedTargets(self.relay.allow_target, any_target=self.relay.allow_any_target)
        return Relay(*urls, allowed, settings, security, events, os.environ, self.relay.owner)


@app.command("relay")
@with_flags
def relay(work: RelayWork, listen: RelayListen, logs: LogFlags) -> None:
    """Take HTTP requests, store them, and send them on until their targets take them.

    A request names its target in X-Dispatcher-Original-Host. It is answered 202 once it is stored. /_relay/ says what
    became of it; /healthz, /readyz and /metrics are beside it. SIGTERM lets calls under way end.
    """
    configure_logging(logs.log_level, logs.log_format)
    process = work.process()
    note_what_is_ignored(os.environ)
    run_server(process.serve(listen.front()))


@app.command("policies")
@with_flags
def policies(output: OutputFlags) -> None:
    """List the retry policies that --backoff takes by name.

    Each with how many seconds a key waits at least and at most after its first, second, fifth and twentieth attempt.
    """
    from workqueue.routing.policies import POLICIES, delay_bounds

    found = {name: {attempts: delay_bounds(name, attempts) for attempts in _ATTEMPTS} for name in POLICIES}
    if output.json:
        printing.document([{"policy": name, "seconds": _seconds(bounds)} for name, bounds in found.items()])
    else:
        printing.listing([{"policy": name, **_spans(bounds)} for name, bounds in found.items()])


app.command("completion")(completion_of("dispatcher"))


def _seconds(bounds: _Bounds) -> dict[int, list[float]]:
    return {attempts: [delay.total_seconds() for delay in delays] for attempts, delays in bounds.items()}


def _spans(bounds: _Bounds) -> dict[str, str]:
    return {f"after {attempts}": f"{least:.1f}-{most:.1f} s" for attempts, (least, most) in _seconds(bounds).items()}


def main() -> None:
    """Run the program."""
    program(app, "dispatcher")


if __name__ == "__main__":
    main()

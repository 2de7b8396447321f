"""The `dispatcher` program: serve (all in one) and run (no receiver)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.environment import DispatchFlags, EventFlags, RunPorts, ServePorts, TargetFlags
from workqueue.programs.access import CallFlags, ListenFlags
from workqueue.programs.ending import EXIT_CODES, common, program, run_server
from workqueue.programs.flags import Flag, with_flags
from workqueue.programs.logs import configure_logging
from workqueue.programs.settings import LogFlags, QueueFlags

if TYPE_CHECKING:
    from dispatcher.process import Process

app = typer.Typer(
    name="dispatcher",
    help="Call a reconciler for the keys of a queue.",
    epilog=EXIT_CODES,
    add_completion=False,
    rich_markup_mode=None,  # plain help starts three times as fast, and pipes well
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "DISPATCHER"},
)
app.callback()(common)


@dataclass(frozen=True, slots=True)
class Work:
    """What every dispatcher process is told."""

    target: TargetFlags
    queue: QueueFlags
    dispatch: DispatchFlags
    events: EventFlags
    calls: CallFlags

    def process(self, *, memory: bool = False) -> Process:
        """The process to run; whatever can be wrong about it is found here."""
        from dispatcher.process import Process

        url = self.queue.url(memory=memory)
        self.events.emitter("checked")
        callback, settings = self.target.opened(self.calls), self.dispatch.settings()
        return Process(url, self.dispatch.owner, callback, settings, self.events, os.environ)


@dataclass(frozen=True, slots=True)
class OnceFlags:
    """When to end."""

    once: Annotated[bool, Flag("run one round, serve nothing, and exit", ("WORKQUEUE_ONCE",))] = False


@app.command("serve")
@with_flags
def serve(work: Work, listen: ListenFlags, ports: ServePorts, logs: LogFlags) -> None:
    """Run receiver, loop and trigger in one process.

    Keys come in over gRPC; GET or POST / starts a round; /healthz, /readyz and /metrics are beside it. SIGTERM and
    SIGINT drain, a second one cancels.
    """
    from dispatcher.process import Listening

    configure_logging(logs.log_level, logs.log_format)
    process = work.process(memory=True)
    listening = Listening(listen.host, ports.http_port, ports.grpc_port, listen.probe_port, listen.security())
    run_server(process.serve(listening))


@app.command("run")
@with_flags
def run(work: Work, listen: ListenFlags, ports: RunPorts, logs: LogFlags, once: OnceFlags) -> None:
    """Run loop and trigger, without a receiver.

    For a queue that is filled by others. With --once it runs one round and exits, for cron jobs.
    """
    from dispatcher.process import Listening

    configure_logging(logs.log_level, logs.log_format)
    process = work.process()
    if once.once:
        run_server(process.once())
    else:
        listening = Listening(listen.host, ports.http_port, None, listen.probe_port, listen.security())
        run_server(process.serve(listening))


def main() -> None:
    """Run the program."""
    program(app, "dispatcher")


if __name__ == "__main__":
    main()

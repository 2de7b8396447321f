"""The `workqueue` program: its commands, in the order in which `--help` lists them."""

from __future__ import annotations

import typer

from workqueue.cli import (
    backup,
    bulk,
    conformance,
    console,
    keys,
    listing,
    queue,
    receivers,
    resync,
    scaler,
    schedules,
    subscribe,
    watch,
)
from workqueue.cli import dead_letters as letters
from workqueue.cli.top.command import top
from workqueue.programs.completion import completion_of
from workqueue.programs.ending import EXIT_CODES, common, program

app = typer.Typer(
    name="workqueue",
    help="Enqueue keys, look at a queue, and operate it.",
    epilog=EXIT_CODES,
    add_completion=False,
    rich_markup_mode=None,  # plain help starts three times as fast, and pipes well
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "WORKQUEUE", "help_option_names": ["-h", "--help"]},
)
dead_letters = typer.Typer(help="Look at, re-drive or drop the keys that were given up.", rich_markup_mode=None)
scheduled = typer.Typer(help="Enqueue keys by cron lines or at intervals.", rich_markup_mode=None)

app.callback()(common)
app.command()(keys.enqueue)
app.command()(keys.get)
app.command()(listing.ls)
app.command()(queue.stats)
app.command()(top)
app.command()(bulk.drop)
app.command("run-now")(bulk.run_now)
app.command()(bulk.release)
app.add_typer(dead_letters, name="dead-letters")
app.command()(queue.pause)
app.command()(queue.resume)
app.command()(queue.configure)
app.add_typer(scheduled, name="schedules")
app.command()(receivers.receive)
app.command()(receivers.hyperqueue)
app.command()(watch.watch)
app.command()(subscribe.subscribe)
app.command()(resync.resync)
app.command()(scaler.scaler)
app.command()(console.console)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(conformance.conformance)
app.command("completion")(completion_of("workqueue"))

dead_letters.command()(letters.ls)
dead_letters.command()(letters.redrive)
dead_letters.command()(letters.drop)

scheduled.command()(schedules.add)
scheduled.command()(schedules.apply)
scheduled.command()(schedules.ls)
scheduled.command()(schedules.pause)
scheduled.command()(schedules.resume)
scheduled.command("run-now")(schedules.run_now)
scheduled.command()(schedules.rm)


def main() -> None:
    """Run the program."""
    program(app, "workqueue")

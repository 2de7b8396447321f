"""The `workqueue` program: its commands, in the order in which `--help` lists them."""

from __future__ import annotations

import typer

from workqueue import cli_conformance, cli_dead_letters, cli_keys, cli_queue, cli_serve
from workqueue.program import EXIT_CODES, common, program

app = typer.Typer(
    name="workqueue",
    help="Enqueue keys, look at a queue, and operate it.",
    epilog=EXIT_CODES,
    add_completion=False,
    rich_markup_mode=None,  # plain help starts three times as fast, and pipes well
    pretty_exceptions_enable=False,
    context_settings={"auto_envvar_prefix": "WORKQUEUE"},
)
dead_letters = typer.Typer(help="Look at, re-drive or drop the keys that were given up.", rich_markup_mode=None)

app.callback()(common)
app.command()(cli_keys.enqueue)
app.command()(cli_keys.get)
app.command()(cli_keys.ls)
app.command()(cli_queue.stats)
app.command()(cli_keys.drop)
app.command()(cli_keys.release)
app.add_typer(dead_letters, name="dead-letters")
app.command()(cli_queue.pause)
app.command()(cli_queue.resume)
app.command()(cli_queue.configure)
app.command()(cli_serve.receive)
app.command()(cli_serve.hyperqueue)
app.command()(cli_conformance.conformance)

dead_letters.command()(cli_dead_letters.ls)
dead_letters.command()(cli_dead_letters.redrive)
dead_letters.command()(cli_dead_letters.drop)


def main() -> None:
    """Run the program."""
    program(app, "workqueue")


if __name__ == "__main__":
    main()

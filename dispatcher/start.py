"""Where `dispatcher` begins: it heeds signals before it imports anything slow, which takes longer than many a stop."""

from __future__ import annotations

from workqueue.programs.streams import fill_closed_streams
from workqueue.signals import exit_on_signals

__all__ = ["start"]


def start() -> None:
    """Run the program. Each of its commands serves: one that a signal ends has done its work, and exits with 0."""
    fill_closed_streams()
    exit_on_signals(0)
    from workqueue.extras import run_main

    run_main("dispatcher", "dispatcher.cli")

"""Where `workqueue` begins: it heeds signals before it imports anything slow, which takes longer than many a stop."""

from __future__ import annotations

import sys

from workqueue.programs.streams import fill_closed_streams
from workqueue.signals import exit_on_signals

__all__ = ["start"]

_SERVERS = frozenset({"console", "receive", "hyperqueue", "resync", "scaler", "subscribe", "watch"})


def start() -> None:
    """Run the program. A server that a signal ends has done its work, and exits with 0."""
    fill_closed_streams()
    exit_on_signals(0 if _SERVERS.intersection(sys.argv[1:2]) else None)
    from workqueue.extras import run_main

    run_main("workqueue", "workqueue.cli.app")

"""moto's server as a process: an SQS that keeps visibility, FIFO groups and deduplication, and never fails."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.processes import started

__all__ = ["moto_server"]

_RUNNING = re.compile(r"Running on (http://\S+)")


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of a server of our own, until the block ends."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with started(command, out=False) as process:
        found = _RUNNING.search(process.logged("Running on"))
        assert found is not None
        yield found[1]

"""moto's server as a process: an SQS that keeps visibility, FIFO groups and deduplication, and never fails."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["moto_server"]

_RUNNING = re.compile(r"Running on (http://\S+)")


@contextmanager
def moto_server() -> Iterator[str]:
    """The address of a server of our own, until the block ends."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            address = next(found[1] for line in process.stderr if (found := _RUNNING.search(line)))
            threading.Thread(
                target=process.stderr.read, daemon=True
            ).start()  # it logs every request, and a pipe gets full
            yield address
        finally:
            process.kill()

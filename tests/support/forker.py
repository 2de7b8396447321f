"""A Python that has imported the programs and forks for each one that a test runs: `… forker PATH`.

Most of a program's start is imports. The fork is made before the program opens anything: here are no threads, no event
loop, no store and no file but the socket at PATH. The child then becomes what `python -m MODULE ARGUMENT…` is, with
its own environment, standard streams and signals, and ends as any Python does.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module

__all__ = ["PRELOADED", "main"]

# What the programs import, now or later; `dispatcher.cli` is not among it, for `-m` runs that module itself.
PRELOADED = (
    "dispatcher.environment",
    "dispatcher.process",
    "dispatcher.relay.target",
    "dispatcher.targets",
    "hiredis",
    "pydantic.type_adapter",
    "rich.table",
    "uvloop",
    "workqueue.backends.gcs.backend",
    "workqueue.backends.memory.backend",
    "workqueue.backends.redis.backend",
    "workqueue.backends.sqlite.backend",
    "workqueue.cli.app",
    "workqueue.rpc.receiver",
    "workqueue.telemetry.exposition",
)


def main() -> None:
    """Fork until standard input ends; in each child, run its program."""
    for module in PRELOADED:
        import_module(module)
    assert threading.active_count() == 1, "a thread does not survive a fork"
    gc.collect()
    gc.freeze()  # the children share what is here instead of copying it when they collect
    child = _forked(sys.argv[1])
    if child is not None:
        _become(child)


def _forked(path: str) -> socket.socket | None:
    """Fork for each connection, and send it the exit code; give the connection in a child, and None at the end."""
    running: dict[int, socket.socket] = {}
    woken, waking = socket.socketpair()
    waking.setblocking(False)
    signal.set_wakeup_fd(waking.fileno())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the tests, and they this
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            ready, _, _ = select.select([listener, woken, sys.stdin], [], [])
            if woken in ready:
                woken.recv(4096)
                _report(running)
            if listener in ready:
                connection, _ = listener.accept()
                _, standard, _, _ = socket.recv_fds(connection, 1, 3)
                pid = os.fork()
                if pid == 0:
                    _take(standard, [listener, woken, waking, *running.values()])
                    return connection
                for descriptor in standard:
                    os.close(descriptor)
                running[pid] = connection
            if sys.stdin in ready:
                return None


def _report(running: dict[int, socket.socket]) -> None:
    for pid, connection in list(running.items()):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with suppress(OSError):  # the test did not wait for it
                connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
            running.pop(pid).close()


def _take(standard: Sequence[int], others: Sequence[socket.socket]) -> None:
    """In a child: have the standard streams and signals of a new process, and nothing of this one's."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(standard):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for other in others:
        other.close()


def _become(connection: socket.socket) -> None:
    """Read from the tests which program to be, and be it."""
    with connection, connection.makefile("rw") as stream:
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        module, arguments, environment = json.loads(stream.readline())
    os.environ.clear()
    os.environ.update(environment)
    sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

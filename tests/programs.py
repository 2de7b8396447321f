"""Run the programs in tests: in this process, which is quick, or as processes of their own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any
from unittest import mock

from workqueue.backends.memory import MemoryQueue
from workqueue.cli import app
from workqueue.conformance import Target, URLTarget
from workqueue.handles import Queued
from workqueue.interface import WorkQueue
from workqueue.program import exit_code
from workqueue.testing import FakeClock


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without the developer's own settings."""
    ours = ("WORKQUEUE_", "DISPATCHER_", "PORT", "SHARD_URLS", "ERROR_EVENT_", "METRICS_PORT")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "GCE_METADATA_HOST": "127.0.0.1:9", "NO_GCE_CHECK": "true", **extra}


def workqueue(*args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ended:
    """One `workqueue` command line, in this process."""
    out, err = io.StringIO(), io.StringIO()
    source = io.TextIOWrapper(io.BytesIO(stdin))
    environment = mock.patch.dict(os.environ, clean_environment(env or {}), clear=True)
    with environment, mock.patch("sys.stdin", source), redirect_stdout(out), redirect_stderr(err):
        code = exit_code(app, "workqueue", args)
    return Ended(code, out.getvalue(), err.getvalue())


def process(program: str, *args: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Ended:
    """One command line of `workqueue` or `dispatcher` as a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", f"{program}.cli", *args],
        input=stdin,
        env=clean_environment(env or {}),
        capture_output=True,
        timeout=60,
    )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


class _ForgetfulQueue(MemoryQueue):
    """Says that it drops a key, and keeps it."""

    async def drop_queued(self, queued: Queued) -> bool:
        return True


class _Forgetful(URLTarget):
    def open(self, name: str, *, clock: FakeClock | None, owner: str) -> WorkQueue:
        opened = super().open(name, clock=clock, owner=owner)
        opened.__class__ = _ForgetfulQueue  # so that its peers share its keys, as the target sees to
        return opened


def forgetful() -> Target:
    return _Forgetful("memory://")

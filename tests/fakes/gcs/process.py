"""The emulator as a process of its own, for tests that kill things and for benchmarks that share no interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0


class GcsProcess:
    """Runs `python -m tests.fakes.gcs.server` while entered; it also ends when this process does.

    Args:
        buckets: created at the start.

    Attributes:
        url: what goes into `STORAGE_EMULATOR_HOST`.
        pid: the child's process id.
    """

    def __init__(self, buckets: Sequence[str] = ("wq",)) -> None:
        self.url = ""
        self.pid = 0
        self._flags = [flag for name in buckets for flag in ("--bucket", name)]
        self._child: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.gcs.server", *self._flags],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.pid = self._child.pid
        assert self._child.stdout is not None
        self.url = self._child.stdout.readline().strip()
        if not self.url:
            raise RuntimeError(f"the GCS emulator ended with status {self._child.wait()}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._child is not None
        self._child.communicate(timeout=TIMEOUT_S)  # closes standard input, which ends it

    def admin(self, method: str, path: str, **body: Any) -> Any:
        """Ask a `/_test/` endpoint: `process.admin("POST", "faults", operation="copy", status=503)`.

        Raises:
            urllib.error.HTTPError: for a path or a body that the endpoint refuses.
        """
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"{self.url}/_test/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())

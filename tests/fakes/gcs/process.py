"""The emulator as a process of its own, for tests that kill things and for benchmarks that share no interpreter."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from tests.support.processes import REPOSITORY, started

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
        self._running = ExitStack()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.fakes.gcs.server", *self._flags]
        with ExitStack() as running:
            child = running.enter_context(started(command, env={"PYTHONPATH": str(REPOSITORY)}))
            self.pid, self.url = child.pid, child.said()
            if not self.url:
                raise RuntimeError(f"the GCS emulator ended with status {child.wait()}")
            running.callback(child.communicate, timeout=TIMEOUT_S)  # closes standard input, which ends it
            self._running = running.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def admin(self, method: str, path: str, **body: Any) -> Any:
        """Ask a `/_test/` endpoint: `process.admin("POST", "faults", operation="copy", status=503)`.

        Raises:
            urllib.error.HTTPError: for a path or a body that the endpoint refuses.
        """
        data = json.dumps(body).encode() if body else None
        request = urllib.request.Request(f"{self.url}/_test/{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read())

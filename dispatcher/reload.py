"""While developing: a dispatcher that starts again when the code of its callback changes.

The dispatcher is a process of its own, since Python cannot import a package anew and forget the old one. It is stopped
as SIGTERM stops it: it drains, so that no attempt is spent, and the next one takes its keys.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from workqueue.errors import InvalidSettingError
from workqueue.signals import signals_handed_to

__all__ = ["Reloader", "sources_of"]

log = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 0.3
_Stamps = Mapping[Path, tuple[int, int]]


def sources_of(callback: str | None) -> Path:
    """The folder to watch for a callback: its top package, or where its module is.

    Args:
        callback: `package.module:name`; modules in the working directory are found too.

    Raises:
        InvalidSettingError: it is no such callback, or there is no such package.
    """
    module, colon, _ = (callback or "").partition(":")
    if not (colon and module) or "://" in (callback or ""):
        raise InvalidSettingError("--reload watches a function of yours: it goes with --callback package.module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is not None and spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    if spec is None or spec.origin is None:
        raise InvalidSettingError(f"--callback or WORKQUEUE_CALLBACK: there is no module {top!r}, looked for in {here}")
    return Path(spec.origin).parent


class Reloader:
    """Runs a command, and runs it again whenever a `.py` file below a folder has changed.

    Args:
        command: what to run; it drains at SIGTERM.
        folder: what is watched.
        environ: the environment of the command.
    """

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str]) -> None:
        self._command = command
        self._folder = folder
        self._environ = environ
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ending = False

    def run(self) -> int:
        """Run until a signal, which is handed on; returns the exit code of the command."""
        log.info("watching %s", self._folder)
        with signals_handed_to(self._hand_on):
            seen = self._stamps()
            while True:
                child = self._start()
                while not self._is_ending and (now := self._stamps()) == seen:
                    time.sleep(_LOOK_EVERY_SECONDS)
                if self._is_ending:
                    return _exit_code(child.wait())
                log.info("%s changed: draining, then starting again", _changed(seen, now))
                seen = now
                child.terminate()
                child.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # In a group of its own: a ctrl-C would reach it twice, from the terminal and from us, and cut its drain short.
        self._child = subprocess.Popen(self._command, env=self._environ, process_group=0)
        if self._is_ending:  # the signal came before there was somebody to hand it to
            self._child.terminate()
        return self._child

    def _hand_on(self, number: int) -> None:
        self._is_ending = True
        if self._child is not None:
            self._child.send_signal(number)

    def _stamps(self) -> _Stamps:
        """When each file was written, and its size. A file that goes while it is looked at is gone."""
        stamps = {}
        for path in self._folder.rglob("*.py"):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            stamps[path] = (found.st_mtime_ns, found.st_size)
        return stamps


def _changed(before: _Stamps, after: _Stamps) -> str:
    """The name of one of the files that differ."""
    differing = {path for path, _ in set(before.items()) ^ set(after.items())}
    return os.fspath(min(differing))


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code

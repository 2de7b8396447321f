"""Each command of docs/start.md is typed in a folder of its own, and prints what the page shows."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tests.support.eventually import eventually
from tests.support.processes import REPOSITORY, ran, started

PAGE = (REPOSITORY / "docs" / "start.md").read_text(encoding="utf-8")
COMMANDS = re.compile(r"\n(?:<!-- (?P<mark>\w+) -->\n)?```console\n(?P<lines>.*?)```", re.DOTALL)
TIMES = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ")


def blocks(mark: str | None) -> list[tuple[str, str]]:
    """Each command of the blocks with that mark, and what the page shows that it prints."""
    text = "".join(found["lines"] for found in COMMANDS.finditer(PAGE) if found["mark"] == mark)
    return [(command, shown) for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)]


class Shell:
    """A folder with the page's file in it, and both programs on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        for name in ("workqueue", "dispatcher"):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name}.cli "$@"\n')
            (programs / name).chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        ports = {"WORKQUEUE_GRPC_PORT": "0", "WORKQUEUE_HTTP_PORT": "0"}
        self.environment = {"PATH": path, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **ports}

    def write(self, text: str) -> None:
        (self.folder / "reconcile.py").write_text(text, encoding="utf-8")

    def prints(self, command: str, shown: str) -> bool:
        """Whether the command prints what the page shows, but for times."""
        ended = ran(["sh", "-c", command], cwd=self.folder, env=self.environment)
        return TIMES.sub("TIME", ended.out + ended.err) == TIMES.sub("TIME", shown)

    @contextmanager
    def dispatching(self) -> Iterator[None]:
        ((command, _),) = blocks("background")
        with started(["sh", "-c", f"exec {command}"], cwd=self.folder, env=self.environment, out=False) as process:
            yield
            process.terminate()
            process.wait()


def test_the_five_minutes_go_as_the_page_says(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    found = re.search(r"<!-- file: reconcile.py -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert found
    shell.write(found[1])
    _install, *typed = [block for block in blocks(None) if not block[0].startswith("python3 -m venv")]
    with shell.dispatching():
        for command, shown in typed:
            eventually(command, partial(shell.prints, command, shown))

    shell.write(found[1].replace('"Oslo"', '"Oslo", "customer/13": "Lima"'))
    with shell.dispatching():
        for command, shown in blocks("mended"):
            eventually(command, partial(shell.prints, command, shown))

"""A person at a terminal, as a program: `python tests/support/terminal.py STEPS COMMAND…`.

STEPS is JSON: `["see", TEXT]` waits for output, `["type", TEXT]` types, `["size", ROWS, COLUMNS]` gives the terminal a
size, `["signal", NUMBER]` sends one. Prints JSON: the exit code, the output, and whether typed keys are shown after it.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time
from typing import Any

PATIENCE_SECONDS = 30.0


class Terminal:
    """A terminal and the program that runs in it."""

    def __init__(self, command: list[str]) -> None:
        self.child, self.file = pty.fork()
        if not self.child:
            os.execv(command[0], command)
        self.output = ""
        self._seen = 0

    def see(self, text: str) -> None:
        until = time.monotonic() + PATIENCE_SECONDS  # a program that goes on drawing is never silent
        while text not in self.output[self._seen :]:
            if time.monotonic() > until or not self._read():
                raise SystemExit(f"never saw {text!r} in {self.output[self._seen :]!r}")
        self._seen = len(self.output)

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def size(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: int) -> None:
        os.kill(self.child, number)

    def ended(self) -> dict[str, object]:
        while self._read():
            pass
        _, status = os.waitpid(self.child, 0)
        echoes = bool(termios.tcgetattr(self.file)[3] & termios.ECHO)
        return {"code": os.waitstatus_to_exitcode(status), "output": self.output, "echoes": echoes}

    def _read(self) -> bool:
        """Read what there is; returns False at the end, or when there is nothing for long."""
        if not select.select([self.file], [], [], PATIENCE_SECONDS)[0]:
            return False
        try:
            read = os.read(self.file, 65536)
        except OSError:  # EIO: the program has ended
            return False
        self.output += read.decode(errors="replace")
        return bool(read)


def main(steps: list[list[Any]], command: list[str]) -> None:
    terminal = Terminal(command)
    for name, *arguments in steps:
        getattr(terminal, name)(*arguments)
    print(json.dumps(terminal.ended()))  # noqa: T201 - a program


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])

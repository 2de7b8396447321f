"""The Lua scripts of the Redis backend: a file each in `lua/`, with what they share in `lua/parts/`."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

from hiredis import pack_command

__all__ = ["LAYOUT", "Argument", "Script", "pack", "script"]

Argument = bytes | str | int
"""What a command takes; text is sent as UTF-8."""

LAYOUT = 1
"""The version of what the scripts keep in Redis; prelude.lua refuses a newer one."""

_USES = re.compile("^-- uses (.*)$", re.MULTILINE)
"""Begins each script, and may come again further down: names the shared parts that are to stand there, in order."""


class Script:
    """One script as the server knows it: by the SHA-1 of its text."""

    __slots__ = ("name", "sha", "text")

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str) -> Script:
    """The script in `lua/<name>.lua`, with the shared parts that it uses."""
    return Script(name, _USES.sub(lambda uses: "\n".join(map(_part, uses[1].split())), _read(name)))


def _part(name: str) -> str:
    return _read(f"parts/{name}")


def _read(name: str) -> str:
    return (files("workqueue.backends.redis") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def pack(*command: Argument) -> bytes:
    """A command as it goes over the wire."""
    packed: bytes = pack_command(command)  # type: ignore[arg-type]  # its type says "a tuple of one"
    return packed

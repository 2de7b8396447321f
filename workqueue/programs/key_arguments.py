"""For programs: the keys that a command is given, on its command line and, as they come in, on stdin."""

from __future__ import annotations

import codecs
import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, cast

import typer

from workqueue.errors import InvalidKeyError, InvalidSettingError
from workqueue.programs.flags import Flag

__all__ = ["Keys", "StdinFlags", "given_batches", "given_keys"]

_CHUNK_BYTES = 64 * 1024

Keys = Annotated[list[str] | None, typer.Argument(metavar="KEY", help="the keys", show_default=False)]


@dataclass(frozen=True, slots=True)
class StdinFlags:
    """Where keys come from beside the command line."""

    stdin: Annotated[bool, Flag("read keys from stdin, too: one a line")] = False

    def is_piped(self) -> bool:
        """Whether keys come from another program or a file; not from somebody who types them."""
        return self.stdin and sys.stdin is not None and not sys.stdin.isatty()


def given_keys(keys: Sequence[str] | None, source: StdinFlags) -> list[str]:
    """All of the keys, once stdin has ended.

    Raises:
        InvalidSettingError, InvalidKeyError: as `given_batches`.
    """
    return [key for batch in given_batches(keys, source) for key in batch]


def given_batches(keys: Sequence[str] | None, source: StdinFlags) -> Iterator[Sequence[str]]:
    """The keys of the command line, then those of stdin, as many as there are at a time, without waiting for more.

    Not to be read inside an event loop: it blocks until there is a line.

    Raises:
        InvalidSettingError: there are none and stdin was not asked for.
        InvalidKeyError: a line of stdin is not UTF-8, or no line at all; raised when it is reached.
    """
    if not keys and not source.stdin:
        raise InvalidSettingError("KEY…: name at least one key, or give --stdin")
    return _batches(keys or (), source)


def _batches(keys: Sequence[str], source: StdinFlags) -> Iterator[Sequence[str]]:
    yield keys
    number = 0
    for lines in _lines() if source.stdin else ():
        yield [key for place, line in enumerate(lines, number + 1) if (key := _key(line, place))]
        number += len(lines)


def _lines() -> Iterator[Sequence[bytes]]:
    rest = b""
    while chunk := _chunk():
        *lines, rest = (rest + chunk).split(b"\n")
        yield lines
        if len(rest) > _CHUNK_BYTES:
            raise InvalidKeyError(f"stdin has a line of more than {_CHUNK_BYTES} bytes; it takes one key a line")
    yield [rest]


def _chunk() -> bytes:
    if sys.stdin is None:
        raise InvalidSettingError("--stdin: stdin is closed")
    try:
        return cast(io.BufferedReader, sys.stdin.buffer).read1(_CHUNK_BYTES)
    except OSError as error:
        raise InvalidSettingError(f"--stdin: stdin cannot be read ({error.strerror})") from error


def _key(line: bytes, number: int) -> str:
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)  # some editors begin every file with it
    try:
        return line.rstrip(b"\r").decode()
    except UnicodeDecodeError:
        raise InvalidKeyError(f"line {number} of stdin is not UTF-8") from None

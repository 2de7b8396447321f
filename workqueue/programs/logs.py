"""For programs: log lines on stderr, as text for people or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from workqueue.programs.progress import is_watched
from workqueue.safe_text import visible

__all__ = ["JSONFormatter", "TextFormatter", "configure_logging"]

_RED, _YELLOW, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[0m"
_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# What every record has; whatever else is on one came in through `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class TextFormatter(logging.Formatter):
    """One record as one line, its traceback indented below it.

    Keys and errors come from anywhere. Whatever could begin a line, move a cursor or hide its neighbours is escaped.

    Args:
        layout: what a line is made of, as `logging.Formatter` takes it.
        colour: whether warnings are yellow, and errors and the last line of a traceback red.
    """

    def __init__(self, layout: str, *, colour: bool = False) -> None:
        super().__init__(layout)
        self._colour = colour

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        record.message = visible(record.message)
        line = super().formatMessage(record)
        if record.levelno >= logging.ERROR:
            return self._shown(line, _RED)
        return self._shown(line, _YELLOW) if record.levelno >= logging.WARNING else line

    def formatException(self, ei: Any) -> str:  # noqa: N802
        *lines, last = [f"  | {visible(line)}" for line in super().formatException(ei).splitlines()]
        return "\n".join([*lines, self._shown(last, _RED)])

    def _shown(self, line: str, colour: str) -> str:
        return f"{colour}{line}{_PLAIN}" if self._colour else line


class JSONFormatter(logging.Formatter):
    """One record as one line: time, level, logger, message, then its extras (key, queue …) and its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(level: str, style: str) -> None:
    """Send log records of `level` (debug … critical) and above to stderr; `style` is `text` or `json`.

    Text is in colour on a terminal, unless NO_COLOR is set (https://no-color.org).
    """
    handler = logging.StreamHandler()
    colour = is_watched() and not os.environ.get("NO_COLOR")
    handler.setFormatter(JSONFormatter() if style == "json" else TextFormatter(_TEXT, colour=colour))
    # Which process it serves from is no news here; what it warns of is.
    logging.getLogger("uvicorn").setLevel("DEBUG" if level == "debug" else "WARNING")
    # It writes past logging, in a format of its own, whatever strangers do to a port; what we are asked, errors say.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

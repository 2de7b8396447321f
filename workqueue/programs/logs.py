"""For programs: log lines on stderr, as text for people or one JSON object a line for machines."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

__all__ = ["JSONFormatter", "configure_logging"]

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
# What every record has; whatever else is on one came in through `extra`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


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
    """Send log records of `level` (debug … critical) and above to stderr; `style` is `text` or `json`."""
    handler = logging.StreamHandler()
    handler.setFormatter(JSONFormatter() if style == "json" else logging.Formatter(_TEXT))
    # Which process it serves from is no news here; what it warns of is.
    logging.getLogger("uvicorn").setLevel("DEBUG" if level == "debug" else "WARNING")
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)

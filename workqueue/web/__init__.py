"""HTTP: serving an ASGI app beside the rest of a process, and guarding it. Read `server` first."""

from __future__ import annotations

from workqueue.extras import require

__all__: list[str] = []

require("http", "serving HTTP")

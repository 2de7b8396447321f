"""Stage 5: raw messages to typed handlers. Read `router` first; `source` says how a message is recognised."""

from __future__ import annotations

from workqueue.extras import require

__all__: list[str] = []

require("routing", "routing messages")

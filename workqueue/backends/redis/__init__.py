"""Stage 2: the queue in Redis or Valkey: atomic scripts on the server's clock, for any number of dispatchers.

Read `backend` first: it has the verbs. `lua/` has the steps, a script each. `turns`, `carrier`, `link` and `wire` bring
calls to the server and answers back, from the queue of calls down to the socket. `renewal` and `wakeups` stand beside
them on connections of their own.
"""

from __future__ import annotations

from workqueue.extras import require

__all__: list[str] = []

require("redis", "redis://")

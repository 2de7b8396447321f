"""gRPC: enqueueing from afar, and reconcilers in processes of their own.

`connect` is a producer's client, `receive` the receiver that it calls, `serve` makes a reconciler of a function, and
`route` spreads keys over shards. Read `wire` first: it says what travels.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from workqueue.extras import require

if TYPE_CHECKING:
    from workqueue.rpc.client import Client, Retries, connect
    from workqueue.rpc.receiver import receive
    from workqueue.rpc.reconciler import serve
    from workqueue.rpc.sharding import route

__all__ = ["Client", "Retries", "connect", "receive", "route", "serve"]

require("grpc", "gRPC")

_LAZY = {
    "Client": "workqueue.rpc.client",
    "Retries": "workqueue.rpc.client",
    "connect": "workqueue.rpc.client",
    "receive": "workqueue.rpc.receiver",
    "route": "workqueue.rpc.sharding",
    "serve": "workqueue.rpc.reconciler",
}

if not TYPE_CHECKING:  # with it in sight, type checkers would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module 'workqueue.rpc' has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)

"""Stage 5: raw messages to typed handlers. Read `router` first; `source` says how a message is recognised."""

from __future__ import annotations

try:
    import msgspec as msgspec
except ImportError as error:
    from workqueue.errors import MissingExtraError

    raise MissingExtraError("routing messages needs msgspec: pip install 'workqueue-dispatcher[routing]'") from error

__all__: list[str] = []

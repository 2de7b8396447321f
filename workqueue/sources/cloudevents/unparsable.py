"""Stage 1: what became of events that can never become keys: dead letters in a queue of their own.

In the queue of the keys a dispatcher could start one before it is a dead letter. In a queue that has no dispatcher
nobody can; operators list, inspect and drop them with the same commands, and the same alert counts them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Mapping

from workqueue.errors import StartLostError
from workqueue.fallbacks import FullQueue
from workqueue.options import MAX_PAYLOAD_BYTES, Options

__all__ = ["Unparsable"]

log = logging.getLogger(__name__)

_KEPT_BYTES = MAX_PAYLOAD_BYTES // 2  # base64 and headers come on top
_KEPT_HEADERS = ("content-type", "ce-")


class Unparsable:
    """Keeps events as dead letters, with the reason as their error and the request as their payload.

    Args:
        queue: a queue that has no dispatcher.
    """

    def __init__(self, queue: FullQueue) -> None:
        self._queue = queue

    async def keep(self, headers: Mapping[str, str], body: bytes, reason: str) -> None:
        """Store one. When this returns, it is kept; the same event sent again is the same dead letter.

        Raises:
            StoreError: unknown whether it was stored.
        """
        key = f"unparsable/{hashlib.sha256(body).hexdigest()[:32]}"
        await self._queue.queue(key, Options(payload=_payload(headers, body)))
        entry = (await self._queue.find(key)).queued
        if entry is not None:
            try:
                await (await entry.start()).dead_letter(reason)
            except StartLostError:  # the same event came in twice at once, and the other request does it
                log.debug("%s is being dead-lettered by another request", key)


def _payload(headers: Mapping[str, str], body: bytes) -> bytes:
    kept = {name: value for name, value in headers.items() if name.lower().startswith(_KEPT_HEADERS)}
    document = {"headers": kept, "body": base64.b64encode(body[:_KEPT_BYTES]).decode(), "size": len(body)}
    return json.dumps(document).encode()[:MAX_PAYLOAD_BYTES]

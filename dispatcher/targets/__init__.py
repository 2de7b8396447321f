"""Stage 5: handlers in other languages: behind an HTTP address, or a program. Both are given one `document`.

A reconciler behind gRPC is called by `dispatcher.target`.
"""

from __future__ import annotations

from dispatcher.targets.command import CommandCallback, command_callback
from dispatcher.targets.document import HandlerFailedError, key_document
from dispatcher.targets.post import HttpCallback, http_callback

__all__ = [
    "CommandCallback",
    "HandlerFailedError",
    "HttpCallback",
    "command_callback",
    "http_callback",
    "key_document",
]

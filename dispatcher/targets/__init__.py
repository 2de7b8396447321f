"""Stage 5: callbacks that call somebody else: a reconciler behind gRPC (`service`), an HTTP address, a program.

Handlers in other languages, behind the latter two, are given one `document`.
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

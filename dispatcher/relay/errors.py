"""What is answered to a caller whose request is not relayed, as a typed error."""

from __future__ import annotations

from workqueue.errors import StoreUnavailableError, WorkQueueError

__all__ = ["RefusedRequestError", "RelayFullError"]


class RelayFullError(StoreUnavailableError):
    """As many requests wait as this relay may hold; the same request may be taken later."""


class RefusedRequestError(WorkQueueError):
    """The request is not relayed; nothing of it was stored.

    Args:
        status: what to answer.
        code: one word for programs, in the JSON of the answer.
        message: what is wrong, and what to do about it.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

"""Stage 1: what the Kubernetes API server refuses, as types that say what to do next."""

from __future__ import annotations

from workqueue.errors import WorkQueueError

__all__ = [
    "ConflictError",
    "ForbiddenError",
    "GoneError",
    "KubernetesError",
    "NotFoundError",
    "UnreachableError",
    "error_of",
]


class KubernetesError(WorkQueueError):
    """The Kubernetes API server refused a request; `status` is the HTTP status, 0 if there was no answer."""

    def __init__(self, message: str = "", status: int = 0, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class UnreachableError(KubernetesError):
    """The Kubernetes API server cannot be reached, or has no time; the same request may succeed later.

    A write may have been carried out although its answer was lost.
    """


class ConflictError(KubernetesError):
    """The object was changed or created by somebody else meanwhile; read it again."""


class GoneError(KubernetesError):
    """The resource version is too old: the API server has forgotten what happened since; list again."""


class ForbiddenError(KubernetesError):
    """The credentials are not accepted, or grant too little; the message names what is missing."""


class NotFoundError(KubernetesError):
    """There is no such object, or no such kind of object."""


_BY_STATUS: dict[int, type[KubernetesError]] = {
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    408: UnreachableError,
    409: ConflictError,
    410: GoneError,
    429: UnreachableError,
}


def error_of(status: int, message: str, retry_after: float = 0.0) -> KubernetesError:
    """The error of an HTTP status."""
    kind = _BY_STATUS.get(status, UnreachableError if status >= 500 else KubernetesError)
    return kind(f"{message} ({status})", status, retry_after)

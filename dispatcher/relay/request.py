"""A request as it is stored: the payload of a key (pure).

The first line is JSON, what follows it is the body as it came. Whoever looks into a store can read it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from uuid import uuid4

from dispatcher.relay.headers import Headers
from dispatcher.relay.target import Target
from workqueue.errors import NonRetriableError

__all__ = ["HEAD_BYTES", "RelayedRequest", "UnreadableRequestError", "new_id", "repeatable_id"]

HEAD_BYTES = 64 * 1024
"""What a payload may have beyond the body. The 16 KiB of headers that a server of ours takes fit, however written."""

_VERSION = 1


class UnreadableRequestError(NonRetriableError):
    """The payload of this key is no request that this release can read; a newer release may have stored it."""


@dataclass(frozen=True, slots=True)
class RelayedRequest:
    """What is sent to the target.

    Args:
        method: as it came.
        target: where to.
        path: path and query, as they came.
        headers: those that are forwarded.
        body: as it came.
        timeout: how long a call may take.
        received_us: when it was received, in wall microseconds.
        repeatable: the caller sent an `Idempotency-Key`, so that the same request may come again.
    """

    method: str
    target: Target
    path: str
    headers: Headers
    body: bytes
    timeout: timedelta
    received_us: int
    repeatable: bool = False

    def to_payload(self) -> bytes:
        """The payload of its key."""
        head = {
            "v": _VERSION,
            "method": self.method,
            "target": [self.target.scheme, self.target.host, self.target.port],
            "path": self.path,
            "headers": self.headers,
            "timeout_ms": self.timeout // timedelta(milliseconds=1),
            "received_us": self.received_us,
            "repeatable": self.repeatable,
        }
        return json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode() + b"\n" + self.body

    @classmethod
    def from_payload(cls, payload: bytes) -> RelayedRequest:
        """What `to_payload` wrote.

        Raises:
            UnreadableRequestError: it wrote something else.
        """
        line, _, body = payload.partition(b"\n")
        try:
            head = json.loads(line.decode())
            if head["v"] != _VERSION:
                raise UnreadableRequestError
            request = cls(
                method=head["method"],
                target=Target(*head["target"]),
                path=head["path"],
                headers=[(name, value) for name, value in head["headers"]],
                body=body,
                timeout=timedelta(milliseconds=head["timeout_ms"]),
                received_us=head["received_us"],
                repeatable=head["repeatable"],
            )
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise UnreadableRequestError from error
        if not request._is_sound():
            raise UnreadableRequestError
        return request

    def _is_sound(self) -> bool:
        """Whether everything is of its type: JSON of somebody else's may hold anything anywhere."""
        target = self.target
        texts = [self.method, self.path, target.scheme, target.host, *(text for pair in self.headers for text in pair)]
        is_number = type(self.received_us) is int and type(target.port) is int
        return is_number and set(map(type, texts)) == {str}

    @property
    def fingerprint(self) -> str:
        """The same for requests that ask for the same; who repeats an `Idempotency-Key` has to repeat the request."""
        digest = sha256(f"{self.method} {self.target} {self.path}\n".encode("utf-8", "surrogatepass"))
        digest.update(self.body)
        return digest.hexdigest()[:32]

    @property
    def shown(self) -> str:
        """Method and path for logs; a query may hold secrets."""
        return f"{self.method} {self.path.partition('?')[0]}"


def new_id(target: Target) -> str:
    """An id that no other request has. It begins with its target, by which operators choose and types are routed."""
    return f"{target.name}/{uuid4().hex}"


def repeatable_id(target: Target, idempotency_key: str) -> str:
    """The id of a request whose caller sent an `Idempotency-Key`: the same for each repetition."""
    named = f"{target}\n{idempotency_key}".encode("utf-8", "surrogatepass")
    return f"{target.name}/{sha256(named).hexdigest()[:32]}"

"""What a test may let the fake Kubernetes API server do wrong, and the log of what it was asked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tests.fakes.kubernetes.store import Refusal


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: `verb` is get, list, watch, create, update, patch or delete; `query` as given."""

    verb: str
    resource: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    query: dict[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What befalls the next `times` requests of `verb` on `resource` ("" = any).

    Args:
        status: answered instead, with `retry_after`, and nothing is done.
        drop: hang up "before" the request is carried out, or "after" it, in place of the answer.
        hold: wait for this event before the request is carried out.
        cut: watches only: after this many events, hang up in the middle of the next line.
        garbage: lists and watches: bytes sent in place of the answer, or of the next event.
        error: watches only: an ERROR event with this status code, then the end.
    """

    verb: str
    resource: str = ""
    times: int = 1
    status: int = 0
    retry_after: int | None = None
    drop: str = ""
    hold: asyncio.Event | None = None
    cut: int | None = None
    garbage: bytes = b""
    error: int = 0

    def refusal(self) -> Refusal:
        reasons = {401: "Unauthorized", 410: "Expired", 429: "TooManyRequests", 500: "InternalError", 504: "Timeout"}
        reason = reasons.get(self.status, "ServiceUnavailable")
        return Refusal(self.status, reason, f"injected {self.status}", retry_after=self.retry_after)


@dataclass
class Plan:
    """The faults still to come, and every request so far."""

    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def take(self, asked: Asked) -> Fault | None:
        """Note a request; returns what is to befall it."""
        self.asked.append(asked)
        for fault in self.faults:
            if fault.times > 0 and fault.verb == asked.verb and fault.resource in ("", asked.resource):
                fault.times -= 1
                return fault
        return None

    def count(self, verb: str, resource: str = "") -> int:
        """How many requests of `verb` on `resource` came in."""
        return sum(asked.verb == verb and resource in ("", asked.resource) for asked in self.asked)

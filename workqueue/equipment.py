"""What a queue lends to those who serve it, beside the verbs of `interface`; optional for a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from workqueue.clock import Clock, SystemClock
from workqueue.home import Home
from workqueue.lease import LeaseRenewer
from workqueue.optional import offers
from workqueue.options import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from workqueue.metrics import QueueMetrics

__all__ = ["Equipment", "EquippedQueue"]


def _nothing() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Equipment:
    """What a queue lends to those who serve it, beside its verbs. A backend names what it has; the rest has a default.

    Args:
        name: the queue's, for metrics and for people.
        clock: what its leases and not-befores are judged by; a dispatcher's pauses follow it too.
        renewer: keeps the leases of this process alive; a dispatcher watches that it ticks.
        metrics: what its backend counts in. None: it counts nothing.
        wakes: whether `wait` learns of what other processes stored. False: a dispatcher must poll for it.
        max_payload: the largest payload that it takes, in bytes.
        home: where it is open. None: nobody but the queue itself knows.
        remark: what an operator should know of a store that works, such as that it was emptied; '' = nothing. A probe
            says it to any stranger: it names no address.
    """

    name: str = "default"
    clock: Clock = field(default_factory=SystemClock)
    renewer: LeaseRenewer | None = None
    metrics: QueueMetrics | None = None
    wakes: bool = True
    max_payload: int = MAX_PAYLOAD_BYTES
    home: Home | None = None
    remark: Callable[[], str] = _nothing

    @classmethod
    def of(cls, queue: object) -> Equipment:
        """The equipment of `queue`, or the defaults where it names none."""
        return queue.equipment if offers(queue, EquippedQueue) else cls()


@runtime_checkable
class EquippedQueue(Protocol):
    """Optional: a clock, a renewer, metrics and more, which dispatchers and servers use where a queue has them."""

    @property
    def equipment(self) -> Equipment:
        """What it lends; the same for as long as the queue lives."""

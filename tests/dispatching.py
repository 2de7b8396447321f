"""What the dispatcher's tests share: a memory queue on a fake clock, and a sink for error events."""

from __future__ import annotations

from datetime import timedelta

from dispatcher import ErrorEvent
from workqueue import KeyNotFoundError, KeyStatus, WorkQueue
from workqueue.backends.memory import MemoryQueue
from workqueue.metrics import EventResult
from workqueue.testing import FakeClock

__all__ = ["Recorder", "clock_of", "memory", "states"]


class Recorder:
    """Keeps the error events it is sent."""

    def __init__(self) -> None:
        self.results: dict[EventResult, int] = {"sent": 0, "failed": 0, "dropped": 0}
        self.events: list[ErrorEvent] = []

    def send(self, event: ErrorEvent) -> None:
        self.events.append(event)

    async def flush(self, timeout: timedelta) -> None:
        self.results["sent"] = len(self.events)

    async def give_up(self) -> None:
        self.events.clear()

    @property
    def told(self) -> list[tuple[str, str]]:
        return [(event.key, event.failure.action) for event in self.events]


def memory() -> MemoryQueue:
    return MemoryQueue(clock=FakeClock())


def clock_of(queue: MemoryQueue) -> FakeClock:
    assert isinstance(queue.clock, FakeClock)
    return queue.clock


async def states(queue: WorkQueue, *keys: str) -> dict[str, KeyStatus]:
    return {key: await _status(queue, key) for key in keys}


async def _status(queue: WorkQueue, key: str) -> KeyStatus:
    try:
        return (await queue.get(key)).status
    except KeyNotFoundError:
        return KeyStatus.UNKNOWN

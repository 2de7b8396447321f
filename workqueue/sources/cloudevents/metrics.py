"""Stage 1: what became of events, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterator

from workqueue.telemetry.samples import Sample

__all__ = ["EventMetrics"]


class EventMetrics:
    """Counts events that became keys, and those that can never be keys, dead letters included.

    Args:
        name: the name of the queue that they feed.
    """

    def __init__(self, name: str = "default") -> None:
        self.name = name
        self.stored = 0
        self.refused = 0

    def samples(self) -> Iterator[Sample]:
        """For `Exposition(sources=[metrics])`."""
        yield "workqueue_source_messages_total", ("cloudevents", "stored"), self.stored
        yield "workqueue_source_messages_total", ("cloudevents", "refused"), self.refused

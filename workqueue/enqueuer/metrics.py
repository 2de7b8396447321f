"""Stage 1: what background enqueuers count."""

from __future__ import annotations

from collections.abc import Iterator

from workqueue.telemetry.samples import Sample

__all__ = ["EnqueuerMetrics"]


class EnqueuerMetrics:
    """What became of the keys that were put; at any time put = merged + sent + failed + buffered.

    Args:
        name: the name of the queue that they go to.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.put = 0
        self.merged = 0
        self.sent = 0
        self.failed = 0

    @property
    def buffered(self) -> int:
        """Keys taken and neither stored nor given up, those on their way included."""
        return self.put - self.merged - self.sent - self.failed

    def samples(self) -> Iterator[Sample]:
        """For `Exposition(sources=[metrics])`."""
        yield "workqueue_enqueuer_put_total", (), self.put
        yield "workqueue_enqueuer_merged_total", (), self.merged
        yield "workqueue_enqueuer_sent_total", (), self.sent
        yield "workqueue_enqueuer_failed_total", (), self.failed
        yield "workqueue_enqueuer_buffered_keys", (), self.buffered

"""The last hour of one queue, as this process has seen it: samples of its counts, in memory and bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from workqueue.optional import Counts

__all__ = ["SPAN", "History", "Sample"]

SPAN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was counted at one moment; None = the store did not answer.

    `starts_per_second` and `per_second`, by outcome, are what dispatchers said.
    """

    at: datetime
    counts: Counts | None
    starts_per_second: float | None = None
    per_second: Mapping[str, float] = field(default_factory=dict)


class History:
    """The samples of the last hour, the oldest first; as many as fit into it at the given period."""

    def __init__(self, period: timedelta) -> None:
        self._samples: deque[Sample] = deque(maxlen=int(SPAN / period) + 1)

    def add(self, sample: Sample) -> None:
        """Remember `sample`, and forget what is older than an hour."""
        self._samples.append(sample)

    @property
    def samples(self) -> Sequence[Sample]:
        """What is remembered."""
        return self._samples

    @property
    def since(self) -> datetime | None:
        """When the oldest sample was taken."""
        return self._samples[0].at if self._samples else None

    def change_per_second(self, name: str, over: timedelta = timedelta(minutes=1)) -> float | None:
        """By how much a count grew a second, over at most the last `over`; None = not known yet."""
        known = [each for each in self._samples if each.counts is not None]
        recent = [each for each in known if known[-1].at - each.at <= over]
        if len(recent) < 2:
            return None
        first, last = recent[0], recent[-1]
        grown: float = getattr(last.counts, name) - getattr(first.counts, name)
        return grown / (last.at - first.at).total_seconds()

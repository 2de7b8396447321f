"""Stage 7: how a dispatcher fares, as its `/status` says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

__all__ = ["Standing"]


@dataclass(frozen=True, slots=True)
class Standing:
    """How one dispatcher fares, or why that is not known.

    `starts_per_second` is None of a dispatcher of an earlier release; `per_second` is by outcome; `troubles` are what
    somebody should look after; `queue` is the name of its queue.
    """

    name: str
    running: int = 0
    limit: int = 0
    uptime: timedelta | None = None
    per_second: Mapping[str, float] = field(default_factory=dict)
    troubles: Sequence[str] = ()
    queue: str = ""
    starts_per_second: float | None = None

    @classmethod
    def read(cls, name: str, document: Any) -> Standing:
        """Read what `/status` answered.

        Raises:
            KeyError, TypeError, ValueError: it is not what a dispatcher answers.
        """
        target = document["target"]
        since = f"the target is down: {target['error']}" if target["down"] else ""
        running = document["running"]
        runaway = f"{running['runaway']} callbacks run on though they were cancelled" if running["runaway"] else ""
        rates = document["rates"]
        said = [document["trouble"], document["remark"], since, runaway]
        return cls(
            name,
            int(running["count"]),
            int(document["limits"]["effective_concurrency"]),
            timedelta(seconds=float(document["uptime_seconds"])),
            {str(outcome): float(rate) for outcome, rate in rates["per_second"].items()},
            [str(trouble) for trouble in said if trouble],
            str(document["queue"]),
            float(rates["starts_per_second"]) if "starts_per_second" in rates else None,
        )

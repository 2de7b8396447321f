"""Stage 7: what only a dispatcher knows, as one JSON document, for `workqueue top` and other programs.

It names keys and says why calls fail. So it is for those who may run a round, not for any stranger as the probes are.
"""

from __future__ import annotations

from dispatcher.health import Health
from dispatcher.setup import Setup
from workqueue.metrics import metrics_of
from workqueue.safe_text import cut, describe

__all__ = ["MAX_RUNNING", "Status"]

MAX_RUNNING = 100
"""How many of the keys in hand are named: those that run longest."""

_ERROR_BYTES = 512


class Status:
    """What one dispatcher knows that its queue does not.

    Args:
        setup: whose numbers, limits and target to show. Its clock says how long each key runs.
        health: whether it works.
    """

    def __init__(self, setup: Setup, health: Health) -> None:
        self._setup = setup
        self._health = health
        self._queue = metrics_of(setup.queue)
        self._began_us = setup.clock.steady_us()

    def document(self) -> dict[str, object]:
        """The present state, in plain values. Counts begin with the process; nothing is asked of the store."""
        now_us = self._setup.clock.steady_us()
        metrics = self._setup.metrics
        metrics.sample_leases(now_us)
        return {
            "queue": metrics.name,
            "uptime_seconds": round((now_us - self._began_us) / 1e6, 3),
            "draining": self._health.draining,
            "trouble": self._health.why_dead() or self._health.why_unready(),
            "remark": self._health.remark(),
            "limits": self._limits(),
            "outcomes": dict(metrics.outcomes),
            "rates": self._rates(now_us),
            "rounds": dict(metrics.rounds),
            "triggers": dict(metrics.triggers),
            "events": dict(metrics.events),
            "target": self._target(now_us),
            "running": self._running(now_us),
        }

    def _limits(self) -> dict[str, object]:
        """What holds starts back: this dispatcher's settings, and those stored with the queue as last counted."""
        settings, stored = self._setup.settings, self._queue.configuration
        return {
            "concurrency": settings.concurrency,
            "effective_concurrency": self._setup.metrics.limit(),
            "batch_size": settings.batch_size or settings.concurrency,
            "max_retry": settings.max_retry,
            "max_run_seconds": settings.max_run_time.total_seconds(),
            "paused": stored.paused,
            "starts_per_second": stored.starts_per_second,
        }

    def _rates(self, now_us: int) -> dict[str, object]:
        seconds, starts, ends = self._setup.metrics.rates(now_us)
        rounded = {outcome: round(rate, 3) for outcome, rate in ends.items()}
        return {"over_seconds": round(seconds, 3), "starts_per_second": round(starts, 3), "per_second": rounded}

    def _target(self, now_us: int) -> dict[str, object]:
        outage = self._setup.outage
        is_down = outage.is_on()
        error = cut(describe(outage.error), _ERROR_BYTES) if is_down and outage.error is not None else ""
        return {"down": is_down, "down_seconds": round(outage.seconds(now_us), 3), "error": error}

    def _running(self, now_us: int) -> dict[str, object]:
        """The keys in hand, the one that runs longest first."""
        metrics = self._setup.metrics
        longest = sorted(metrics.running.items(), key=lambda each: each[1])[:MAX_RUNNING]
        keys = [
            {"key": owned.key, "attempts": owned.attempts, "seconds": round((now_us - began_us) / 1e6, 3)}
            for owned, began_us in longest
        ]
        return {"count": len(metrics.running), "runaway": metrics.runaway_callbacks, "keys": keys}

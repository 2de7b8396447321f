"""Stage 4: what becomes of a key whose process died: the one rule, which every backend asks (pure).

Processes mostly die for reasons of their own: a deploy, a lost node, kill -9. So a first death is not held against the
key, which runs again at once, as Kubernetes restarts a container at once after its first crash. A key that had failed
or died before is suspected: it waits as after any failure, and is given up after as many attempts, or a key that kills
its process would do so for ever.
"""

from __future__ import annotations

from datetime import timedelta

from workqueue.backoff import Backoff, backoff_for

__all__ = ["ORPHAN_ERROR", "orphan_wait"]

ORPHAN_ERROR = "OrphanedError: its lease lapsed, since its process died or was cut off from the store"
"""What a dead letter says when nobody settled its key's last attempt."""


def orphan_wait(attempts: int, max_retry: int, hook: Backoff | None = None) -> timedelta | None:
    """How long an orphan waits for its next attempt; None: it is given up, and dead-lettered with `ORPHAN_ERROR`.

    Args:
        attempts: those spent, the one cut off included.
        max_retry: an orphan with this many is given up; 0 = never.
        hook: decides how long, where it returns more than zero.
    """
    if 0 < max_retry <= attempts:
        return None
    return backoff_for(attempts, hook, first=timedelta(0))

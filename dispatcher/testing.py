"""For tests of reconcilers: rounds until nothing is left to do, and a sink that keeps error events.

docs/testing.md shows them at work; `workqueue.testing` has what needs no dispatcher.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Unpack

from dispatcher.callback import Callback
from dispatcher.error_events import ErrorEvent, ErrorEvents
from dispatcher.round import handle
from dispatcher.settings import SettingsArgs
from workqueue.clock import from_us
from workqueue.fallbacks import FullQueue, with_fallbacks
from workqueue.interface import WorkQueue
from workqueue.metrics import EventResult
from workqueue.testing import FakeClock, shown_queue

__all__ = ["CollectedEvents", "run_until_idle"]

_MOST_ROUNDS = 100


class CollectedEvents:
    """An event sink for tests: `events` has every error event, in order."""

    def __init__(self) -> None:
        self.events: list[ErrorEvent] = []
        self.results: dict[EventResult, int] = {"sent": 0, "failed": 0, "dropped": 0}

    def send(self, event: ErrorEvent) -> None:
        self.events.append(event)
        self.results["sent"] += 1

    async def flush(self, timeout: timedelta) -> None:
        """Return at once: nothing waits."""

    async def give_up(self) -> None:
        """Return at once: nothing waits."""

    @property
    def actions(self) -> list[tuple[str, str]]:
        """Each event's key and what was done with it: `requeued`, `dead-lettered`, `expired` or `dropped`."""
        return [(event.key, event.failure.action) for event in self.events]


async def run_until_idle(
    queue: WorkQueue,
    callback: Callback,
    *,
    clock: FakeClock | None = None,
    errors: ErrorEvents | None = None,
    **settings: Unpack[SettingsArgs],
) -> int:
    """Run rounds until no key can be started; returns how many it ran.

    Args:
        queue: any backend.
        callback: the reconciler.
        clock: the queue's. It is moved over every delay, so that keys which wait for a retry run too; without it they
            are left to wait.
        errors: where error events go.
        settings: the fields of `DispatcherSettings`.

    Raises:
        AssertionError: there was still something to do after 100 rounds, such as a key that asks for itself again
            and again; the text shows the queue.
        ExceptionGroup: a round failed, as `handle` says.
    """
    full = with_fallbacks(queue)
    for done in range(_MOST_ROUNDS):
        if not await _is_work_left(full, clock):
            return done
        await handle(queue, callback=callback, errors=errors, **settings)
    raise AssertionError(f"there is still work after {_MOST_ROUNDS} rounds:\n{await shown_queue(queue)}")


async def _is_work_left(queue: FullQueue, clock: FakeClock | None) -> bool:
    """Whether a key can be started, if need be once the clock was moved to the time of the next one."""
    counts = await queue.counts()
    if counts.queued:
        return True
    delayed = await queue.delayed(1) if clock is not None else ()
    for key in delayed:
        if clock is not None and key.not_before is not None:
            clock.advance(max(key.not_before - from_us(clock.wall_us()), timedelta(microseconds=1)))
    return bool(delayed)

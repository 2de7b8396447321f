"""Stages 3-4: one dispatch pass: recover orphans, start keys within the limits, and wait for all of their attempts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Unpack

from dispatcher.attempt import Attempts
from dispatcher.callback import Callback
from dispatcher.error_events import FLUSH_TIMEOUT, ErrorEvents
from dispatcher.report import Reports
from dispatcher.settings import DispatcherSettings, SettingsArgs
from dispatcher.setup import Setup
from dispatcher.waiting import to_the_end
from workqueue.interface import Leased, OwnedInProgressKey, WorkQueue

__all__ = ["Round", "handle", "handle_async", "lease_keys"]

log = logging.getLogger(__name__)


async def handle(
    queue: WorkQueue, *, callback: Callback, errors: ErrorEvents | None = None, **settings: Unpack[SettingsArgs]
) -> None:
    """Run one round: start eligible keys within the limits, call `callback` for each, settle each, wait for all.

    Cancelling it cancels the callbacks; their keys are released, and settles under way are finished, before it returns.

    Args:
        queue: any backend.
        callback: a coroutine function or a plain function, called with a key and its `Attempt`.
        errors: where error events go.
        settings: the fields of `DispatcherSettings`.

    Raises:
        InvalidSettingError: a setting is out of range.
        StoreError: the store failed before any key was started.
        ExceptionGroup: the store failed for some keys; the others were processed.
        KeyboardInterrupt: a callback raised it; its attempt failed, the others were processed.
    """
    await Round(Setup.of(queue, callback, DispatcherSettings(**settings), errors)).run()


def handle_async(
    queue: WorkQueue, *, callback: Callback, errors: ErrorEvents | None = None, **settings: Unpack[SettingsArgs]
) -> asyncio.Task[None]:
    """Start a round now; awaiting the returned task waits for it, cancelling the task ends it as `handle` says.

    Args and errors are those of `handle`; the latter are raised where the task is awaited, but for InvalidSettingError.
    """
    round_ = Round(Setup.of(queue, callback, DispatcherSettings(**settings), errors))
    return asyncio.get_running_loop().create_task(round_.run())


class Round:
    """One dispatch pass, to be run once."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._attempts = Attempts(setup)
        self._stopping = False

    async def run(self) -> None:
        """Dispatch once, and wait for every attempt; a cancellation does what `stop` does, and is raised at the end."""
        # In a task that nobody else can cancel: keys that it starts are ours to settle or to release.
        await to_the_end(asyncio.get_running_loop().create_task(self._dispatch()), self.stop)
        if self._attempts.fatal is not None:
            raise self._attempts.fatal

    def stop(self) -> None:
        """Start nothing more and cancel the callbacks; `run` returns once their keys are released."""
        self._stopping = True
        self._attempts.stop()
        self._attempts.poke()

    async def _begin(self, started: Sequence[OwnedInProgressKey]) -> None:
        if self._stopping:
            await self._attempts.release(started)
        else:
            self._attempts.start(started)

    async def _dispatch(self) -> None:
        settings, metrics = self._setup.settings, self._setup.metrics
        try:
            async with self._attempts as attempts:
                leased = await lease_keys(self._setup, settings.concurrency)
                await self._begin(leased.started)
                while attempts and not self._stopping:
                    await attempts.change()
                if self._stopping:
                    await attempts.end()
            if self._setup.errors is not None:
                await self._setup.errors.flush(FLUSH_TIMEOUT)
        except BaseException:
            metrics.rounds["failed"] += 1
            raise
        failed = [*leased.errors, *attempts.take_errors()]
        metrics.rounds["failed" if failed else "ok"] += 1
        if failed:
            raise ExceptionGroup(f"the store failed for {len(failed)} keys of this round", failed)


async def lease_keys(setup: Setup, limit: int) -> Leased:
    """One lease step: recover orphans, start up to `limit` keys; counts and reports the orphans.

    It must not be cancelled: keys that it started are the caller's to settle or release.
    """
    leased = await setup.queue.lease(setup.settings.lease_request(limit))
    if leased.recovered:
        now_us = setup.clock.wall_us()
        try:
            setup.metrics.recovered(leased.recovered, now_us)
            Reports(setup.metrics.name, setup.errors).recovered(leased.recovered, now_us)
        except Exception:  # a sink that raises must not cost the keys that were started in the same step
            log.exception("orphans could not be reported", extra={"queue": setup.metrics.name})
    return leased

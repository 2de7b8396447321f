"""One dispatch pass: recover orphans, start keys within the limits, and wait for all of their attempts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Unpack

from dispatcher.attempt import Attempts
from dispatcher.broker import FLUSH_TIMEOUT
from dispatcher.callback import Callback
from dispatcher.error_events import ErrorEvents
from dispatcher.leasing import lease_keys
from dispatcher.outage import TargetUnavailableError, outage_of
from dispatcher.settings import DispatcherSettings, SettingsArgs
from dispatcher.setup import Setup
from dispatcher.waiting import to_the_end
from workqueue.interface import OwnedInProgressKey, WorkQueue

__all__ = ["Round", "handle", "handle_async"]


async def handle(
    queue: WorkQueue, *, callback: Callback, errors: ErrorEvents | None = None, **settings: Unpack[SettingsArgs]
) -> None:
    """Run one round: start eligible keys within the limits, call `callback` for each, settle each, wait for all.

    A settle that the store fails is tried again, for as long as the lease is kept, and for the length of one at most.
    Cancelling it cancels the callbacks; their keys are released, and settles under way are finished, before it returns.

    Args:
        queue: any backend.
        callback: a coroutine function or a plain function, called with a key and its `Attempt`.
        errors: where error events go.
        settings: the fields of `DispatcherSettings`.

    Raises:
        InvalidSettingError: a setting is out of range, or the callback cannot be called so.
        StoreError: the store failed before any key was started.
        ExceptionGroup: the store failed for some keys; the others were processed.
        TargetUnavailableError: the target cannot be reached; the keys that were started for it were released unspent.
        KeyboardInterrupt: a callback raised it; its attempt failed, the others were processed.
    """
    await _round(queue, callback, errors, settings).run()


def handle_async(
    queue: WorkQueue, *, callback: Callback, errors: ErrorEvents | None = None, **settings: Unpack[SettingsArgs]
) -> asyncio.Task[None]:
    """Start a round now; awaiting the returned task waits for it, cancelling the task ends it as `handle` says.

    Args and errors are those of `handle`; the latter are raised where the task is awaited, but for InvalidSettingError.
    """
    return asyncio.get_running_loop().create_task(_round(queue, callback, errors, settings).run())


def _round(queue: WorkQueue, callback: Callback, errors: ErrorEvents | None, settings: SettingsArgs) -> Round:
    outage = outage_of(callback, lasting=False)
    return Round(Setup.of(queue, callback, DispatcherSettings(**settings), errors, outage=outage))


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

    async def _dispatch(self) -> None:
        metrics = self._setup.metrics
        try:
            async with self._attempts:
                store_errors = await self._run_keys()
            if self._setup.errors is not None:
                await self._setup.errors.flush(FLUSH_TIMEOUT)
        except BaseException:
            metrics.rounds["failed"] += 1
            raise
        unreached = None if self._stopping else self._unreached()
        metrics.rounds["failed" if store_errors else "target-down" if unreached else "ok"] += 1
        if store_errors:
            text = f"the store failed for {len(store_errors)} keys of this round"
            raise ExceptionGroup(text, [*store_errors, *([unreached] if unreached else [])])
        if unreached:
            raise unreached

    async def _run_keys(self) -> list[Exception]:
        """Start keys and wait for all of them; returns what went wrong in the store."""
        errors: list[Exception] = []
        while True:
            await self._attempts.look_at_target()
            room = self._setup.outage.starts(self._setup.settings.concurrency, self._setup.clock.steady_us())
            was_held = self._setup.outage.is_on()
            leased = await lease_keys(self._setup, room)
            self._begin(leased.started)
            while self._attempts and not self._stopping:
                await self._attempts.change()
            if self._stopping:
                await self._attempts.end()
            errors += [*leased.errors, *self._attempts.take_errors()]
            if self._stopping or not was_held or self._setup.outage.is_on():
                return errors
            # The probe was answered: this round is for the others too.

    def _begin(self, started: Sequence[OwnedInProgressKey]) -> None:
        if self._stopping:
            self._attempts.release(started)
        else:
            self._attempts.begin(started)

    def _unreached(self) -> TargetUnavailableError | None:
        """What to raise if keys were not called because the target is down; None if all were."""
        outage, number = self._setup.outage, self._attempts.unreached
        if not number and not outage.is_on():
            return None
        seconds = outage.seconds(self._setup.clock.steady_us())
        since = f"the target has been down for {seconds:.0f} s" if outage.is_on() else "the target cannot be reached"
        keys = {0: "nothing was started", 1: "1 key was handed back unspent"}
        what = keys.get(number, f"{number} keys were handed back unspent")
        return TargetUnavailableError(f"{since}; {what}: {outage.error}")

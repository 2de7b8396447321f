"""One lease step on a bucket: look at what is in progress, recover orphans, start keys, hand surplus back.

The step is many requests, so its limit is soft: dispatchers that look at the same moment see the same room. Each looks
again after it started keys and hands back the newest surplus before anything is called. With `exact=true` slots decide.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from workqueue.backends.gcs.api.requests import RefusedError
from workqueue.backends.gcs.bucket import Bucket
from workqueue.backends.gcs.handles import Handles
from workqueue.backends.gcs.listing.packed import Candidate
from workqueue.backends.gcs.listing.running import Running, Seen
from workqueue.backends.gcs.sharing.sharing import Sharing
from workqueue.backends.gcs.sharing.slots import Permit
from workqueue.backends.gcs.stored_settings import configuration_of
from workqueue.errors import StoreError
from workqueue.handles import Observed, Owned, recovered_orphan
from workqueue.interface import KeyStatus
from workqueue.optional import Leased, LeaseRequest, RecoveredOrphan
from workqueue.orphan import ORPHAN_ERROR, orphan_wait
from workqueue.rules import Requeue

__all__ = ["Leasing"]

_T = TypeVar("_T")


class Leasing:
    """Lease steps on one bucket, one at a time.

    Args:
        bucket: the bucket.
        handles: start keys, and take them from owners that are gone.
        sharing: says which keys this process starts.
    """

    def __init__(self, bucket: Bucket, handles: Handles, sharing: Sharing) -> None:
        self._bucket = bucket
        self._handles = handles
        self._sharing = sharing
        self._turn = asyncio.Lock()

    async def step(self, request: LeaseRequest) -> Leased:
        """Recover orphans, then start keys (see `LeasingQueue.lease`); a cancelled step hands back what it started."""
        step = _Step(self._bucket, self._handles, self._sharing, request)
        try:
            return await self._handles.aftermath.run(self._in_turn(step), step.hand_back)
        except asyncio.CancelledError:
            step.stop()
            raise

    async def _in_turn(self, step: _Step) -> Leased:
        async with self._turn:
            return await step.run()


@dataclass(frozen=True, slots=True)
class _Unused:
    """A permit with which no key was started; `raced`: another dispatcher was faster."""

    permit: Permit
    raced: bool


class _Step:
    """One lease step, and what it has done so far, which must reach the caller whatever fails later."""

    def __init__(self, bucket: Bucket, handles: Handles, sharing: Sharing, request: LeaseRequest) -> None:
        self._bucket = bucket
        self._handles = handles
        self._sharing = sharing
        self._request = request
        self._started: list[Owned] = []
        self._recovered: list[RecoveredOrphan] = []
        self._errors: list[Exception] = []
        self._stopped = False

    def stop(self) -> None:
        """Start nothing more: nobody is there to have it."""
        self._stopped = True

    async def run(self) -> Leased:
        if self._stopped:
            return Leased(())
        running = await self._sharing.look()
        await self._recover(running)
        try:
            await self._start(running)
            await self._hand_back_surplus()
        except StoreError as error:
            if not self._started and not self._recovered:
                raise
            self._errors.append(error)
        return Leased(self._started, self._recovered, self._errors)

    # orphans

    async def _recover(self, running: Running) -> None:
        orphans = running.orphans(self._bucket.time.now_us())
        self._recovered += await self._all(
            self._recover_one(self._handles.observed(key, seen)) for key, seen in orphans.items()
        )
        if self._recovered:
            self._bucket.metrics.expired(len(self._recovered))

    async def _recover_one(self, orphan: Observed) -> RecoveredOrphan | None:
        """Take an orphan from its owner; one that the store will not move is set aside."""
        wait = orphan_wait(orphan.attempts, self._request.max_retry, self._request.backoff)
        try:
            if wait is None:
                taken = await self._handles.dead_letter_observed(orphan, ORPHAN_ERROR)
            else:
                taken = await self._handles.requeue_observed(orphan, Requeue(backoff=wait))
        except RefusedError as error:
            stored = cast(Seen, orphan.version).stored
            self._bucket.listing.set_aside(KeyStatus.IN_PROGRESS, orphan.key, stored, str(error))
            return None
        return recovered_orphan(orphan.entry, orphan.owner, dead_lettered=wait is None) if taken else None

    # starting

    async def _start(self, running: Running) -> None:
        room = self._room(running)
        rate = configuration_of(running.settings).starts_per_second
        if room <= 0 or (rate is not None and not self._bucket.stored.saved_up(running, rate)):
            return
        await self._bucket.listing.fill(room)
        wanted = min(room, self._bucket.listing.kept.startable)
        if rate is not None and wanted:
            wanted = await self._bucket.stored.spend(running, rate, wanted)
        async with self._sharing.permits(running, room, wanted) as permits:
            while permits and not self._stopped and (chosen := await self._sharing.choose(len(permits))):
                lost = await self._try_all(chosen, permits)
                await self._sharing.raced(len(chosen), lost, len(permits))

    def _room(self, running: Running) -> int:
        """How many keys may be started now under all limits but the rate."""
        live, request = running.live(self._bucket.time.now_us()), self._request
        return min(request.limit, configuration_of(running.settings).room(request.concurrency, live))

    async def _try_all(self, chosen: Sequence[Candidate], permits: list[Permit]) -> int:
        """Start the chosen keys at once; returns with how many others were faster, whose permits stay in the list."""
        used = [permits.pop() for _ in chosen]
        done = await self._all(map(self._try, chosen, used))
        unused = [each for each in done if isinstance(each, _Unused)]
        self._started += [each for each in done if isinstance(each, Owned)]
        permits += [each.permit for each in unused]
        return sum(each.raced for each in unused)

    async def _try(self, candidate: Candidate, permit: Permit) -> Owned | _Unused:
        """Start one key; one that the store will not move is set aside."""
        try:
            owned = await self._try_twice(candidate, permit)
        except RefusedError as error:
            self._bucket.listing.set_aside(KeyStatus.QUEUED, candidate.key, candidate.stored, str(error))
            return _Unused(permit, raced=False)
        return owned if owned is not None else _Unused(permit, raced=True)

    async def _try_twice(self, candidate: Candidate, permit: Permit) -> Owned | None:
        """Start one key, as it is now if it changed since it was listed; None if another was faster."""
        listing = self._bucket.listing
        owned = await self._handles.begin(candidate, permit)
        if owned is not None:
            return owned
        fresh = await self._bucket.moves.reread(candidate)
        if fresh is None:
            listing.unqueued(candidate.key)
        elif fresh.version == candidate.version:
            listing.kept.add_twin(fresh)
        elif fresh.entry.not_before_us > self._bucket.clock.wall_us():
            listing.queued(fresh)
        else:
            return await self._handles.begin(fresh, permit)
        return None

    # surplus

    async def _hand_back_surplus(self) -> None:
        """Release those of our newest leases that are beyond the limit."""
        if not self._started:
            return
        surplus = await self._sharing.surplus(self._request.concurrency)
        await self._release([owned for owned in self._started if owned.lease.token in surplus])

    async def hand_back(self, leased: Leased) -> None:
        """Release everything that was started."""
        await self._release(list(self._started))

    async def _release(self, surplus: Sequence[Owned]) -> None:
        self._started = [owned for owned in self._started if owned not in surplus]
        await self._all(map(_release, surplus))

    async def _all(self, steps: Iterable[Awaitable[_T | None]]) -> list[_T]:
        """Take every step at once; returns the outcomes that are not None, and notes the store's errors."""
        done: list[_T] = []
        for outcome in await asyncio.gather(*steps, return_exceptions=True):
            if isinstance(outcome, StoreError):
                self._errors.append(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
            elif outcome is not None:
                done.append(outcome)
        return done


async def _release(owned: Owned) -> None:
    try:
        await owned.release()
    except StoreError:
        owned.abandon()  # it was not called and must not be; whoever recovers it finds it as it was
        raise

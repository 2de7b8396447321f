"""Stage 5: renewing the leases of a process in its bucket, from a thread and an event loop that callbacks cannot block.

All keys are renewed at once, one PATCH each, pinned to the generation and not to the metageneration: of a renewal whose
answer was lost nobody knows whether it landed, and it must not cost the next one its lease.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar, cast

from workqueue.backends.gcs.api.objects import Objects
from workqueue.backends.gcs.api.preconditions import Pin
from workqueue.backends.gcs.api.requests import HTTP
from workqueue.backends.gcs.api.store_time import StoreTime
from workqueue.backends.gcs.metadata import lease_stamp, renewed_metadata
from workqueue.errors import StoreError, StoreUnavailableError
from workqueue.lease import Lease, Renewed

__all__ = ["GCSLease", "Renewal"]

log = logging.getLogger(__name__)

_MOST_SECONDS = 30.0
_JOIN_SECONDS = 5.0
_T = TypeVar("_T")


class GCSLease(Lease):
    """A lease with what proves it: the object in progress, and the slot that it takes under an exact limit."""

    __slots__ = ("pin", "slot")

    def __init__(self, key: str, token: str, pin: Pin, slot: Pin | None = None) -> None:
        super().__init__(key, token)
        self.pin = pin
        self.slot = slot


class Renewal:
    """The `renew` of a `LeaseRenewer`.

    Args:
        connect: makes the connections to be used on the loop here.
        bucket: its name.
        time: stamps leases.
        lease_us: how long a lease lasts.
    """

    def __init__(self, connect: Callable[[], HTTP], bucket: str, time: StoreTime, lease_us: int) -> None:
        self._http = connect()
        self._objects = Objects(self._http, bucket)
        self._time = time
        self._lease_us = lease_us
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def renew(self, leases: Sequence[Lease], timeout: float) -> Renewed:
        """Renew these leases (see `lease.Renew`)."""
        return self._run(self._renew_all(leases, min(max(timeout, 0.1), _MOST_SECONDS)))

    def close(self) -> None:
        """Close the connections and end the thread."""
        if self._loop is None or self._thread is None:
            return
        self._run(self._http.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_JOIN_SECONDS)
        self._loop = self._thread = None

    def _run(self, step: Coroutine[Any, Any, _T]) -> _T:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._serve, args=(self._loop,), name="gcs-renewal", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(step, self._loop).result()

    @staticmethod
    def _serve(loop: asyncio.AbstractEventLoop) -> None:
        try:
            loop.run_forever()
        finally:
            loop.close()

    async def _renew_all(self, leases: Sequence[Lease], timeout: float) -> Renewed:
        due = cast(Sequence[GCSLease], leases)
        try:
            await self._http.open()
        except StoreError as error:  # a key file that is being replaced, say: it may be there at the next try
            return Renewed((), trouble=str(error))
        stamp = lease_stamp(self._time.now_us() + self._lease_us)
        answers = await asyncio.gather(*(self._renew(lease, stamp, timeout) for lease in due), return_exceptions=True)
        answered = list(zip(due, answers, strict=True))
        kept = [lease for lease, answer in answered if answer is True]
        lost = [lease for lease, answer in answered if answer is False]
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        return Renewed(kept, lost, str(failed[-1]) if failed else "")

    async def _renew(self, lease: GCSLease, stamp: str, timeout: float) -> bool:
        change = renewed_metadata(stamp)
        try:
            async with asyncio.timeout(timeout):
                # The slot first: while a lease lives, nobody else may find its slot lapsed.
                if lease.slot is not None and (await self._objects.patch(lease.slot, change)).made is None:
                    return False
                return (await self._objects.patch(lease.pin, change)).made is not None
        except TimeoutError as error:
            raise StoreUnavailableError("a renewal was not answered in time") from error
        except StoreError as error:
            log.debug("renewal of %r failed: %s", lease.key, error)
            raise

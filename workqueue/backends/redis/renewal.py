"""Stage 5: renewing leases from the renewer's thread, on a connection that no blocked event loop can stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from redis.exceptions import ResponseError

from workqueue.backends.redis.address import Address, Locator, RedisSettings
from workqueue.backends.redis.birth import Birth
from workqueue.backends.redis.blocking import BlockingConnection
from workqueue.backends.redis.errors import CONNECTION_ERRORS, asks_for_script, typed_error
from workqueue.backends.redis.records import key_bytes
from workqueue.backends.redis.scripts import script
from workqueue.clock import Clock
from workqueue.errors import StoreError, StoreUnavailableError
from workqueue.lease import Lease, Renewed

__all__ = ["Renewal"]

log = logging.getLogger(__name__)

_AT_ONCE = 1000
_LONGEST_WAIT = 5.0  # seconds for one answer: a silent node is given up early enough to try the next one


class Renewal:
    """Renews in one batch; `renew` is what a `LeaseRenewer` calls, always from one thread.

    Args:
        settings: the connection.
        locator: where the master is.
        clock: if given, goes by its time instead of the server's.
        lease_us: how long a renewed lease lasts.
        birth: notices that the queue was emptied.
    """

    def __init__(
        self, settings: RedisSettings, locator: Locator, clock: Clock | None, lease_us: int, birth: Birth
    ) -> None:
        self._settings = settings
        self._locator = locator
        self._clock = clock
        self._lease_us = lease_us
        self._connection: BlockingConnection | None = None
        self._address = Address("", 0)
        self._script = script("renew")
        self._birth = birth

    def renew(self, leases: Sequence[Lease], timeout: float) -> Renewed:
        """Renew these leases; answers within `timeout` seconds (see `lease.Renew`)."""
        until = time.monotonic() + timeout
        kept: list[Lease] = []
        lost: list[Lease] = []
        for start in range(0, len(leases), _AT_ONCE):
            batch = leases[start : start + _AT_ONCE]
            try:
                answer, _, born = self._ask(batch, until).partition(b" ")
            except StoreUnavailableError as error:
                return Renewed(kept, lost, str(error), self._why_lost())
            for lease, is_held in zip(batch, answer, strict=True):
                (kept if is_held == ord("1") else lost).append(lease)
            self._birth.look(born)
        return Renewed(kept, lost, why_lost=self._why_lost())

    def _why_lost(self) -> str:
        return "the store was emptied or replaced" if self._birth.emptied_within(self._lease_us) else ""

    def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ask(self, batch: Sequence[Lease], until: float) -> bytes:
        left = min(until - time.monotonic(), _LONGEST_WAIT)
        if left <= 0:
            raise StoreUnavailableError("no time is left to renew in")
        try:
            return self._call(batch, left)
        except (*CONNECTION_ERRORS, ResponseError, StoreError) as error:
            self.close()  # the next try looks for the master again
            # Transient whatever it is: even an error that an operator has to mend may be mended before the deadline.
            raise StoreUnavailableError(str(typed_error(error, str(self._address)))) from error

    def _call(self, batch: Sequence[Lease], timeout: float) -> bytes:
        connection = self._open(timeout)
        pairs = [argument for lease in batch for argument in (key_bytes(lease.key), lease.token)]
        now = (self._clock.wall_us(), self._clock.steady_us()) if self._clock else ("", "")
        arguments = (*self._settings.script_keys, *now, "", 0, self._lease_us, *pairs)
        try:
            answer: bytes = connection.ask("EVALSHA", self._script.sha, *arguments, timeout=timeout)
        except ResponseError as error:
            if not asks_for_script(error):
                raise
            answer = connection.ask("EVAL", self._script.text, *arguments, timeout=timeout)
        return answer

    def _open(self, timeout: float) -> BlockingConnection:
        if self._connection is None:
            self._address = self._locator.locate(timeout)
            self._connection = BlockingConnection(self._settings.connection(self._address, timeout), timeout)
        return self._connection

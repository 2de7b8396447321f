"""A whole backend in less than 60 lines: the three verbs over a dict. docs/writing-a-backend.md walks through it.

The rest is the library's: `RecordHandles` makes each step one change of one record, `LeaseRenewer` keeps leases alive,
and `with_fallbacks` adds what dispatchers need beyond the three verbs. For a real store, replace the dict and its lock
by whatever reads and replaces one record atomically: a row in a transaction, a document by its version.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from workqueue import Clock, KeyState, Options, Snapshot, SystemClock
from workqueue.equipment import Equipment
from workqueue.home import Home
from workqueue.key import check_key_text, validate_key
from workqueue.lease import DEFAULT_LEASE, Lease, LeaseRenewer, Renewed
from workqueue.options import check_options
from workqueue.record import NOWHERE, Change, Record, RecordHandles, enqueuing, renewing
from workqueue.rules import enqueued

__all__ = ["Table", "ThreeVerbs"]


@dataclass
class Table:
    """The store: one record for each key. Everybody who opens a queue on the same table works on the same keys."""

    records: dict[str, Record] = field(default_factory=dict)
    changing: threading.Lock = field(default_factory=threading.Lock)  # leases are renewed from a thread

    def change(self, key: str, change: Change) -> bool:
        """Replace the record of `key` by what `change` makes of it; returns False if that is None."""
        with self.changing:
            changed = change(self.records.get(key, NOWHERE))
            if changed is None:
                return False
            self.records[key] = changed
            if changed == NOWHERE:
                del self.records[key]
            return True


class ThreeVerbs:
    """A `WorkQueue` on a `Table`."""

    def __init__(self, table: Table, *, clock: Clock | None = None, owner: str = "") -> None:
        self.table = table
        self.clock = clock or SystemClock()
        self.renewer = LeaseRenewer(self._renew, DEFAULT_LEASE, self.clock)
        self.home = Home()
        self.equipment = Equipment(clock=self.clock, renewer=self.renewer, home=self.home)
        self.handles = RecordHandles(self._change, self.renewer, self.clock, owner)

    async def __aenter__(self) -> Self:
        self.home.enter()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.home.leave()
        self.renewer.close()

    async def queue(self, key: str, options: Options = Options()) -> None:
        """Store a key, merged with its queued entry."""
        check_options(options)
        entry = enqueued(validate_key(key), options, self.clock.wall_us())
        await self._change(key, enqueuing(entry))

    async def enumerate(self, limit: int = 100) -> Snapshot:
        """What is where."""
        self.home.check()
        return self.handles.snapshot(self.table.records.values(), limit)

    async def get(self, key: str) -> KeyState:
        """The state of one key."""
        self.home.check()
        return self.handles.state(key, self.table.records.get(check_key_text(key), NOWHERE))

    async def _change(self, key: str, change: Change) -> bool:
        self.home.check()
        return self.table.change(key, change)

    def _renew(self, leases: Sequence[Lease], timeout: float) -> Renewed:
        expires_us = self.clock.steady_us() + DEFAULT_LEASE.duration_us
        kept = [lease for lease in leases if self.table.change(lease.key, renewing(lease, expires_us))]
        return Renewed.of(leases, kept)

"""What tests of the bucket backend share: queues on the strict emulator, quick to try again, moved by a FakeClock."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from tests.fakes.gcs.server import GcsServer
from workqueue.backends.gcs.address import GCSSettings
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.clock import Clock
from workqueue.interface import OwnedInProgressKey
from workqueue.lease import LeaseTimes
from workqueue.optional import LeaseRequest
from workqueue.testing import FakeClock

LEASE = LeaseTimes(timedelta(seconds=15), timedelta(seconds=5))
MANY, FEW = 1000, 5


@contextmanager
def emulator(*buckets: str) -> Iterator[GcsServer]:
    """The strict emulator on a thread of its own, so that renewals from a FakeClock reach it."""
    with GcsServer(buckets or ("wq",)) as server:
        yield server


def bucket_queue(server: GcsServer, clock: Clock | None, *, owner: str = "", **settings: Any) -> GCSQueue:
    """A queue on bucket `wq` of the emulator, not entered yet."""
    quick = GCSSettings("wq", endpoint=server.url, anonymous=True, tries=3, first_pause=0.001)
    return GCSQueue(dataclasses.replace(quick, **settings), clock=clock, owner=owner, lease=LEASE)


async def start_all(queue: GCSQueue, limit: int = MANY, concurrency: int = MANY) -> list[OwnedInProgressKey]:
    """The keys that one lease step starts."""
    leased = await queue.lease(LeaseRequest(limit, concurrency))
    assert not leased.errors
    return list(leased.started)


async def start_one(queue: GCSQueue, key: str = "a") -> OwnedInProgressKey:
    """Enqueue and start a key."""
    await queue.queue(key)
    (owned,) = await start_all(queue)
    return owned


async def run_everything(server: GcsServer, queue: GCSQueue, clock: FakeClock) -> list[str]:
    """Complete whatever there is to run, orphans included, until nothing is left; returns the keys.

    Six times are enough for every orphan, twin and backoff of one key; what is still there then is stuck.
    """
    done: list[str] = []
    for _ in range(6):
        if not unfinished(server):
            break
        clock.freeze(timedelta(minutes=20))  # leases lapse, backoffs pass
        for owned in (await queue.lease(LeaseRequest(FEW, FEW))).started:
            assert await owned.complete()
            done.append(owned.key)
    return done


def unfinished(server: GcsServer) -> list[str]:
    """The objects of keys that are to be run, or in progress, and their slots."""
    return [name for name in names(server) if not name.startswith(("in-progress-settings", "dead-letter/"))]


def names(server: GcsServer, bucket: str = "wq") -> list[str]:
    """What is in the bucket."""
    return list(server.store.snapshot(bucket))


def operations(server: GcsServer) -> list[str]:
    """The requests since the last reset, in order, as `copy queued/a > in-progress/a`."""
    return [
        f"{entry.operation} {entry.source} > {entry.name}" if entry.source else f"{entry.operation} {entry.name}"
        for entry in server.log.entries
    ]

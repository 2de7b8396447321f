"""What tests with a Kubernetes API server share: a fake one, a connection, a queue, and time that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.fakes.kubernetes.server import KubernetesServer
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.sources.kubernetes import API, KubernetesSource, Watch
from workqueue.sources.resync import Enqueues
from workqueue.testing import FakeClock

__all__ = ["Scene", "connected", "passing", "watching"]


async def passing(clock: FakeClock, happened: Callable[[], bool], step: timedelta = timedelta(seconds=1)) -> None:
    """Let time pass until something has happened that takes a server's answers, too."""
    async with asyncio.timeout(30):
        while not happened():
            clock.advance(step)
            await asyncio.sleep(0.002)


@asynccontextmanager
async def connected(server: KubernetesServer) -> AsyncIterator[API]:
    """A connection to the server, configured by a kubeconfig as a user would."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "config"
        file.write_text(server.kubeconfig())
        async with await API.connect(file) as api:
            yield api


@dataclass
class Scene:
    """A source that watches the fake API server and enqueues into memory."""

    server: KubernetesServer
    queue: MemoryQueue
    source: KubernetesSource
    clock: FakeClock

    async def passing(self, happened: Callable[[], bool]) -> None:
        await passing(self.clock, happened)

    async def taken(self) -> dict[str, int]:
        """Every key that is queued, with its priority; they are removed, so that the next call has what came since."""
        queued = (await self.queue.enumerate(1_000_000)).queued
        for key in queued:
            await key.drop()
        return {key.key: key.priority for key in queued}

    async def next(self, *keys: str) -> dict[str, int]:
        """Wait until all of `keys` were enqueued; returns what was enqueued by then."""
        found: dict[str, int] = {}
        async with asyncio.timeout(30):
            while not set(keys) <= set(found):
                self.clock.advance(timedelta(milliseconds=100))
                await asyncio.sleep(0.002)
                found |= await self.taken()
        return found

    async def listed(self) -> dict[str, int]:
        """Wait for the first list, and for its keys to be enqueued; returns them."""
        await self.passing(lambda: self.source.ready and not self.source.waiting)
        await asyncio.sleep(0)
        return await self.taken()

    async def watching(self, watches: int = 1) -> None:
        """Wait until so many watches are open."""
        await self.passing(lambda: self.server.watches == watches)


@asynccontextmanager
async def watching(
    server: KubernetesServer, *watches: Watch, into: Enqueues | None = None, **options: Any
) -> AsyncIterator[Scene]:
    """A source that runs until the block ends; it enqueues `into` another queue where one is given."""
    clock = FakeClock()
    async with connected(server) as api, MemoryQueue(clock=clock) as queue:
        source = KubernetesSource(api, watches, into or queue, clock=clock, **options)
        running = asyncio.create_task(source.run())
        try:
            yield Scene(server, queue, source, clock)
            if running.done():
                await running
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

"""A queue that is slow or down: nothing is lost, what is urgent goes first, and memory stays what the objects need."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.kubernetes import watching
from workqueue.errors import StoreUnavailableError
from workqueue.options import Options
from workqueue.sources.kubernetes import Watch, nothing

PODS = Watch("v1/Pod", keep=nothing)


class Gate:
    """A queue that is down until it is opened."""

    def __init__(self) -> None:
        self.open = False
        self.refused = 0
        self.batches: list[list[tuple[str, int]]] = []

    async def queue_many(self, items: Iterable[tuple[str, Options]], /) -> None:
        batch = [(key, options.priority) for key, options in items]
        await asyncio.sleep(0)
        if not self.open:
            self.refused += 1
            raise StoreUnavailableError
        self.batches.append(batch)

    @property
    def keys(self) -> list[str]:
        return [key for batch in self.batches for key, _ in batch]


async def test_what_changes_while_the_queue_is_down_is_enqueued_once_when_it_is_back() -> None:
    gate = Gate()
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        async with watching(server, PODS, into=gate) as scene:
            await scene.watching()
            for _ in range(10):
                server.touch("Pod", "a")
            await scene.passing(lambda: gate.refused > 2)
            gate.open = True

            await scene.passing(lambda: not scene.source.waiting)
            assert gate.batches == [[("default/a", 0)]]


async def test_what_changed_overtakes_what_was_only_listed() -> None:
    gate = Gate()
    async with KubernetesServer() as server:
        for number in range(1500):
            server.create("Pod", f"p{number}")
        async with watching(server, PODS, into=gate) as scene:
            await scene.watching()
            server.touch("Pod", "p1400")
            server.create("Pod", "new")
            await scene.passing(lambda: scene.source.waiting == 1501)
            gate.open = True
            await scene.passing(lambda: not scene.source.waiting)

            # One batch may have been on its way when the queue came back.
            assert [("default/p1400", 0), ("default/new", 0)] in gate.batches[:2]
            assert sorted(gate.keys) == sorted(server.names("Pod"))


async def test_a_key_counts_as_waiting_until_the_queue_has_it() -> None:
    class Slow(Gate):
        asked, answer = asyncio.Event(), asyncio.Event()

        async def queue_many(self, items: Iterable[tuple[str, Options]], /) -> None:
            self.asked.set()
            await self.answer.wait()
            await super().queue_many(items)

    gate = Slow()
    gate.open = True
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        async with watching(server, PODS, into=gate) as scene:
            await gate.asked.wait()
            assert scene.source.waiting == 1
            gate.answer.set()
            await scene.passing(lambda: not scene.source.waiting)
            assert gate.keys == ["default/a"]


async def test_objects_that_come_and_go_while_the_queue_is_down_make_the_watch_wait_and_are_not_lost() -> None:
    gate = Gate()
    async with KubernetesServer() as server:
        server.create("Pod", "stays")
        async with watching(server, PODS, into=gate) as scene:
            await scene.watching()
            names = [f"short-lived-{number}" for number in range(4000)]
            for name in names:
                server.create("Pod", name, data="x" * 500)
                server.delete("Pod", name)
                await asyncio.sleep(0)
            await scene.passing(lambda: gate.refused > 10)
            assert 1000 < scene.source.waiting < 2000  # of 4,000: about 1,000 and what one read of the socket brings
            gate.open = True

            await scene.passing(lambda: set(gate.keys) >= {f"default/{name}" for name in names})
            assert len(scene.source.cache(PODS)) == 1

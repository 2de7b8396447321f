"""Source and elector against a real API server with 10,000 objects, which ends, forgets, and is slow."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.tcp_proxy import TcpProxy
from tests.kubernetes.cluster_of_tests import Cluster
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.leader import ElectionTimes, Elector
from workqueue.sources.kubernetes import API, KubernetesSource, Watch, nothing
from workqueue.sources.kubernetes.election import KubernetesLease

pytestmark = pytest.mark.timeout(300)

OBJECTS = 10_000
LABEL = "crowd"
TIMES = ElectionTimes(timedelta(seconds=6), timedelta(seconds=4), timedelta(milliseconds=500))


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Nothing of a test is left to a later one, where it would be an error."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def crowded(cluster: Cluster) -> str:
    """A namespace with 10,000 ConfigMaps."""
    namespace = cluster.new_namespace()
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    names = (f"object-{number}" for number in range(OBJECTS))
    cluster.call_all(("POST", path, {"metadata": {"name": name, "labels": {LABEL: "yes"}}}) for name in names)
    return namespace


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    """What is between a client and the API server."""
    with TcpProxy(6443) as between:
        yield between


@asynccontextmanager
async def connected(cluster: Cluster, proxy: TcpProxy, folder: Path) -> AsyncIterator[API]:
    config = folder / f"kubeconfig-{proxy.port}"
    url = f"https://127.0.0.1:{proxy.port}"
    config.write_text(cluster.plane.kubeconfig_of(cluster.plane.token, url), encoding="utf-8")
    async with await API.connect(config) as api:
        yield api


async def until(what: str, found: Callable[[], Any] | Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Return once `found`, a function or a coroutine function, gives something true."""
    try:
        async with asyncio.timeout(120):
            while True:
                it = found()
                if await it if asyncio.iscoroutine(it) else it:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what} did not come about") from None


class Watched:
    """A source of the crowd that enqueues into memory."""

    def __init__(self, queue: MemoryQueue, source: KubernetesSource, path: str, cluster: Cluster) -> None:
        self._queue = queue
        self._source = source
        self._path = path
        self._cluster = cluster

    async def touch(self, *names: str) -> None:
        """Change objects, past the proxy."""
        for name in names:
            body = {"metadata": {"name": name, "labels": {LABEL: "yes"}, "annotations": {"touched": "yes"}}}
            await asyncio.to_thread(self._cluster.call, "PUT", f"{self._path}/{name}", body)

    async def create(self, name: str) -> None:
        body = {"metadata": {"name": name, "labels": {LABEL: "yes"}}}
        await asyncio.to_thread(self._cluster.call, "POST", self._path, body)

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self._cluster.call, "DELETE", f"{self._path}/{name}")

    async def taken(self, least: int) -> set[str]:
        """Which objects' keys were enqueued since the last call, once there are `least` and no more are to come."""
        await until(f"{least} keys", lambda: self._has(least))
        found = (await self._queue.enumerate(1_000_000)).queued
        for queued in found:
            await queued.drop()
        return {queued.key.partition("/")[2] for queued in found}

    async def _has(self, least: int) -> bool:
        return (await self._queue.counts()).queued >= least and self._source.waiting == 0


def watching(
    cluster: Cluster,
    namespace: str,
    proxy: TcpProxy,
    folder: Path,
    scenario: Callable[[Watched], Coroutine[Any, Any, None]],
) -> None:
    """Run `scenario` beside a source that has listed the crowd, and whose first keys are gone."""

    async def run() -> None:
        async with connected(cluster, proxy, folder) as api, MemoryQueue() as queue:
            watch = Watch("v1/ConfigMap", namespace, f"{LABEL}=yes", keep=nothing)
            source = KubernetesSource(api, [watch], queue)
            watched = Watched(queue, source, f"/api/v1/namespaces/{namespace}/configmaps", cluster)
            running = asyncio.create_task(source.run())
            try:
                assert len(await watched.taken(OBJECTS)) == OBJECTS
                await scenario(watched)
            finally:
                running.cancel()
                await asyncio.wait([running])

    asyncio.run(run())


def test_of_an_api_server_that_ended_meanwhile_only_what_changed_is_enqueued(
    cluster: Cluster, crowded: str, proxy: TcpProxy, tmp_path: Path
) -> None:
    async def scenario(watched: Watched) -> None:
        await asyncio.to_thread(cluster.plane.stop, "kube-apiserver")
        await asyncio.to_thread(cluster.plane.start_api_server)
        await watched.touch("object-7")

        assert await watched.taken(1) == {"object-7"}

    watching(cluster, crowded, proxy, tmp_path, scenario)


def test_of_an_api_server_that_has_forgotten_what_happened_only_what_changed_is_enqueued(
    cluster: Cluster, crowded: str, proxy: TcpProxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(watched: Watched) -> None:
        await watched.create("short-lived")
        assert await watched.taken(1) == {"short-lived"}
        proxy.is_refusing = True
        proxy.cut()
        await watched.touch("object-1", "object-2")
        await watched.delete("short-lived")
        await asyncio.to_thread(cluster.plane.stop, "kube-apiserver")
        await asyncio.to_thread(cluster.plane.forget)
        await asyncio.to_thread(cluster.plane.start_api_server)
        proxy.is_refusing = False

        assert await watched.taken(3) == {"object-1", "object-2", "short-lived"}

    with caplog.at_level("INFO", "workqueue.sources.kubernetes"):
        watching(cluster, crowded, proxy, tmp_path, scenario)
    assert "(410)" in caplog.text


def test_a_slow_api_server_is_waited_for(cluster: Cluster, crowded: str, proxy: TcpProxy, tmp_path: Path) -> None:
    async def scenario(watched: Watched) -> None:
        await watched.touch("object-3")

        assert await watched.taken(1) == {"object-3"}

    proxy.delay_seconds = 0.1
    watching(cluster, crowded, proxy, tmp_path, scenario)


class Election:
    """Two candidates, each with a way of its own to the API server, and who of them works."""

    def __init__(self) -> None:
        self.working: set[str] = set()
        self.proxies = {"a": TcpProxy(6443), "b": TcpProxy(6443)}

    async def stand(self, name: str, cluster: Cluster, namespace: str, folder: Path) -> None:
        """Be a candidate until cancelled."""

        async def work() -> None:
            assert not self.working, "two work at a time"
            self.working.add(name)
            try:
                await asyncio.Event().wait()
            finally:
                self.working.discard(name)

        with self.proxies[name]:
            async with connected(cluster, self.proxies[name], folder) as api:
                await Elector(KubernetesLease(api, namespace, "the-lease"), name, TIMES).run(work)

    async def led_by(self, *names: str) -> str:
        """Who works, once it is one of `names`."""
        await until(f"a leader out of {names}", lambda: self.working & set(names))
        return next(iter(self.working))


def test_one_of_two_electors_leads_whatever_becomes_of_the_api_server(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    election = Election()

    async def run() -> None:
        async with asyncio.TaskGroup() as tasks:
            standing = [tasks.create_task(election.stand(name, cluster, namespace, tmp_path)) for name in ("a", "b")]
            await scenario()
            for task in standing:
                task.cancel()

    async def scenario() -> None:
        first = await election.led_by("a", "b")
        election.proxies[first].is_refusing = True
        election.proxies[first].cut()
        second = await election.led_by(*({"a", "b"} - {first}))
        election.proxies[first].is_refusing = False

        await asyncio.to_thread(cluster.plane.stop, "kube-apiserver")
        await until("the end of the work of who cannot renew", lambda: not election.working)
        await asyncio.to_thread(cluster.plane.start_api_server)
        third = await election.led_by("a", "b")

        election.proxies[third].delay_seconds = 0.3
        seen: set[str] = set()
        await until("renewals by a slow way", lambda: renewed_often(seen))
        assert (election.working, {first, second}) == ({third}, {"a", "b"})

    async def renewed_often(seen: set[str]) -> bool:
        lease = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/the-lease"
        seen.add((await asyncio.to_thread(cluster.call, "GET", lease))["spec"]["renewTime"])
        return len(seen) > 4

    asyncio.run(run())

"""The cache that reconcilers read: what it has, how it is found, and that nobody can spoil it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.kubernetes import watching
from workqueue.sources.kubernetes import Watch, nothing, without_managed_fields

NODES = {"node": lambda pod: [pod["spec"]["nodeName"]]}


def on(node: str) -> dict[str, Any]:
    return {"spec": {"nodeName": node, "containers": [{"name": "c"}]}}


async def test_an_object_is_read_as_it_last_was() -> None:
    watch = Watch("v1/Pod")
    async with KubernetesServer() as server:
        server.create("Pod", "a", **on("n1"))
        async with watching(server, watch) as scene:
            await scene.listed()
            await scene.watching()
            cache = scene.source.cache(watch)
            assert cache.get("default/a") == server.read("Pod", "a")

            server.touch("Pod", "a", changed="yes")
            await scene.next("default/a")

            assert cache.get("default/a") == server.read("Pod", "a")
            assert cache.get("default/b") is None
            assert "default/a" in cache


async def test_changing_what_was_read_changes_nothing_in_the_cache() -> None:
    watch = Watch("v1/Pod", indexes=NODES)
    async with KubernetesServer() as server:
        server.create("Pod", "a", **on("n1"))
        async with watching(server, watch) as scene:
            await scene.listed()
            cache = scene.source.cache(watch)
            for read in (cache.get("default/a"), *cache.find("node", "n1")):
                assert read is not None
                read["spec"]["containers"][0]["name"] = read["metadata"]["name"] = "spoilt"

            assert cache.get("default/a") == server.read("Pod", "a")


async def test_an_index_follows_every_change() -> None:
    watch = Watch("v1/Pod", indexes=NODES)
    async with KubernetesServer() as server:
        for name in ("a", "b", "c"):
            server.create("Pod", name, **on("n1"))
        async with watching(server, watch) as scene:
            await scene.listed()
            await scene.watching()
            server.store.update(server.resource("Pod"), ("default", "b"), {"metadata": {"name": "b"}, **on("n2")})
            server.delete("Pod", "c")
            await scene.next("default/b", "default/c")

            cache = scene.source.cache(watch)
            assert [pod["metadata"]["name"] for pod in cache.find("node", "n1")] == ["a"]
            assert [pod["metadata"]["name"] for pod in cache.find("node", "n2")] == ["b"]
            assert cache.find("node", "n3") == []


async def test_an_index_forgets_what_vanished_while_nobody_watched() -> None:
    watch = Watch("v1/Pod", indexes=NODES)
    async with KubernetesServer() as server:
        server.create("Pod", "a", **on("n1"))
        async with watching(server, watch) as scene:
            await scene.listed()
            await scene.watching()
            await server.stop()
            server.delete("Pod", "a")
            server.compact()
            await server.start()
            await scene.next("default/a")

            assert scene.source.cache(watch).find("node", "n1") == []


async def test_what_the_server_alone_needs_may_be_left_out() -> None:
    watch = Watch("v1/Pod", keep=without_managed_fields)
    async with KubernetesServer() as server:
        server.store.create(
            server.resource("Pod"), "d", {"metadata": {"name": "a", "managedFields": [{"manager": "m"}]}}
        )
        async with watching(server, watch) as scene:
            await scene.listed()
            kept = scene.source.cache(watch).get("d/a")

            assert kept is not None
            assert "managedFields" not in kept["metadata"]


async def test_a_source_that_nobody_reads_keeps_no_object_and_still_sees_what_changed() -> None:
    watch = Watch("v1/Pod", keep=nothing)
    async with KubernetesServer() as server:
        for name in ("a", "b", "c"):
            server.create("Pod", name)
        async with watching(server, watch) as scene:
            await scene.listed()
            await scene.watching()
            await server.stop()
            server.touch("Pod", "a")
            server.delete("Pod", "b")
            server.compact()
            await server.start()

            assert set(await scene.next("default/a", "default/b")) == {"default/a", "default/b"}
            assert scene.source.cache(watch).get("default/c") is None
            assert len(scene.source.cache(watch)) == 2


@pytest.mark.parametrize(
    "options", [{"keep": lambda pod: pod["absent"]}, {"indexes": {"x": lambda pod: pod["absent"]}}]
)
async def test_a_function_that_errs_over_an_object_is_logged_and_its_key_is_enqueued(
    options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        async with watching(server, Watch("v1/Pod", **options)) as scene:
            assert set(await scene.listed()) == {"default/a"}
            assert "default/a" in caplog.text

"""A Kubernetes source against a real HTTP server: whatever happens on the way, no change is missed."""

from __future__ import annotations

import asyncio
import logging

import pytest

from tests.fakes.kubernetes.faults import Fault
from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.kubernetes import watching
from workqueue.sources.kubernetes import Watch

PODS = Watch("v1/Pod")


async def test_what_is_there_is_enqueued_in_the_background_and_what_changes_before_it() -> None:
    async with KubernetesServer() as server:
        for name in ("a", "b"):
            server.create("Pod", name)
        async with watching(server, PODS) as scene:
            assert await scene.listed() == {"default/a": -100, "default/b": -100}
            await scene.watching()

            server.touch("Pod", "a")
            server.create("Pod", "c", "other")

            assert await scene.next("default/a", "other/c") == {"default/a": 0, "other/c": 0}


async def test_a_deleted_object_is_enqueued_and_no_longer_cached() -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        async with watching(server, PODS) as scene:
            await scene.listed()
            await scene.watching()

            server.delete("Pod", "a")

            assert await scene.next("default/a") == {"default/a": 0}
            assert "default/a" not in scene.source.cache(PODS)


async def test_a_long_list_comes_in_pages_and_every_object_counts() -> None:
    async with KubernetesServer() as server:
        for number in range(1201):
            server.create("Pod", f"p{number}")
        async with watching(server, PODS) as scene:
            assert len(await scene.listed()) == 1201
            assert server.plan.count("list", "pods") == 3


async def test_objects_of_no_namespace_are_called_by_their_name_alone() -> None:
    async with KubernetesServer() as server:
        server.create("Namespace", "prod")
        async with watching(server, Watch("v1/Namespace")) as scene:
            assert set(await scene.listed()) == {"prod"}


async def test_only_what_namespace_and_selectors_choose_is_enqueued() -> None:
    watch = Watch("v1/Pod", namespace="prod", label_selector="app in (web,api)", field_selector="metadata.name!=c")
    async with KubernetesServer() as server:
        server.create("Pod", "a", "prod", labels={"app": "web"})
        server.create("Pod", "b", "prod", labels={"app": "db"})
        server.create("Pod", "c", "prod", labels={"app": "web"})
        server.create("Pod", "d", "test", labels={"app": "web"})
        async with watching(server, watch) as scene:
            assert set(await scene.listed()) == {"prod/a"}


async def test_an_object_that_leaves_the_selection_is_enqueued_once_more() -> None:
    watch = Watch("v1/Pod", label_selector="app=web")
    async with KubernetesServer() as server:
        server.create("Pod", "a", labels={"app": "web"})
        async with watching(server, watch) as scene:
            await scene.listed()
            await scene.watching()

            server.touch("Pod", "a", app="db")

            assert set(await scene.next("default/a")) == {"default/a"}
            assert len(scene.source.cache(watch)) == 0


async def test_a_watch_that_ends_is_resumed_where_it_ended() -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        async with watching(server, PODS) as scene:
            await scene.listed()
            await scene.watching()
            server.cut_watches()
            server.touch("Pod", "a")

            assert set(await scene.next("default/a")) == {"default/a"}
            assert server.plan.count("list") == 1


async def test_after_a_quiet_time_a_watch_is_resumed_from_the_last_bookmark() -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        async with watching(server, PODS) as scene:
            await scene.listed()
            await scene.watching()
            server.create("ConfigMap", "of-no-interest")  # the revision moves on, this watch sees nothing
            server.bookmark()
            await asyncio.sleep(0.05)
            server.compact()
            server.cut_watches()
            await scene.passing(lambda: server.plan.count("watch", "pods") == 2)
            server.touch("Pod", "a")

            assert set(await scene.next("default/a")) == {"default/a"}
            assert server.plan.count("list") == 1


@pytest.mark.parametrize("in_stream", [True, False])
async def test_after_a_410_only_what_changed_in_the_gap_is_enqueued(in_stream: bool) -> None:
    async with KubernetesServer() as server:
        server.expired_in_stream = in_stream
        for name in ("kept", "changed", "deleted", "replaced"):
            server.create("Pod", name)
        async with watching(server, PODS) as scene:
            await scene.listed()
            await scene.watching()
            await server.stop()
            server.touch("Pod", "changed")
            server.create("Pod", "created")
            server.delete("Pod", "deleted")
            server.delete("Pod", "replaced")
            server.create("Pod", "replaced")
            server.compact()
            await server.start()

            expected = {"default/changed", "default/created", "default/deleted", "default/replaced"}
            assert set(await scene.next(*expected)) == expected
            assert set(scene.source.cache(PODS)) == set(server.names("Pod"))


async def test_a_list_whose_history_is_compacted_between_two_pages_begins_again_with_larger_pages() -> None:
    async with KubernetesServer() as server:
        for number in range(700):
            server.create("Pod", f"p{number}")
        second_page = asyncio.Event()
        server.faults.extend([Fault("list", times=1, status=0), Fault("list", times=1, hold=second_page)])
        async with watching(server, PODS) as scene:
            await scene.passing(lambda: server.plan.count("list") == 2)
            server.delete("Pod", "p0")
            server.compact()
            second_page.set()

            assert len(await scene.listed()) in (699, 700)  # p0 may have been enqueued from the first page
            assert set(scene.source.cache(PODS)) == set(server.names("Pod"))
        assert [asked.query["limit"] for asked in server.asked if asked.verb == "list"] == ["500", "500", "2000"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("list", "pods", times=2, status=500),
        Fault("list", "pods", times=2, status=429, retry_after=3),
        Fault("list", "pods", times=2, drop="before"),
        Fault("list", "pods", times=2, drop="after"),
        Fault("list", "pods", times=2, garbage=b"<html>not today</html>"),
        Fault("list", "pods", times=2, garbage=b"[]"),
        Fault("watch", "pods", times=2, status=503),
        Fault("watch", "pods", times=2, status=410),
        Fault("watch", "pods", times=2, drop="before"),
        Fault("watch", "pods", times=2, garbage=b"neither JSON nor an event"),
        Fault("watch", "pods", times=2, garbage=b'{"type":"MODIFIED"}'),
        Fault("watch", "pods", times=2, cut=1),
        Fault("watch", "pods", times=2, error=500),
        Fault("watch", "pods", times=2, error=410),
    ],
    ids=str,
)
async def test_a_failing_api_server_is_asked_again_and_nothing_is_missed(fault: Fault) -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        server.faults.append(fault)
        async with watching(server, PODS) as scene:
            await scene.passing(lambda: scene.source.ready)
            for name in "bcdef":
                server.create("Pod", name)
            await scene.next("default/f")
            await scene.passing(lambda: fault.times == 0)
            server.create("Pod", "last")
            await scene.next("default/last")
            assert set(scene.source.cache(PODS)) == set(server.names("Pod"))


async def test_a_slow_list_delays_the_keys_and_loses_none() -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        slow = asyncio.Event()
        server.faults.append(Fault("list", hold=slow))
        async with watching(server, PODS) as scene:
            await scene.passing(lambda: server.plan.count("list") == 1)
            assert not scene.source.ready
            slow.set()

            assert set(await scene.listed()) == {"default/a"}


@pytest.mark.parametrize(("verb", "said"), [("list", "cannot list"), ("watch", "cannot watch")])
async def test_a_missing_permission_is_said_in_one_line_and_waited_for(
    verb: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with KubernetesServer() as server:
        server.create("Pod", "a")
        server.forbidden.add((verb, "pods"))
        async with watching(server, PODS) as scene:
            await scene.passing(lambda: server.plan.count(verb) >= 4)
            [line] = [record for record in caplog.records if record.levelno == logging.ERROR]
            assert said in line.getMessage()
            assert 'resource "pods"' in line.getMessage()

            server.forbidden.clear()
            await scene.watching()
            server.touch("Pod", "a")
            await scene.next("default/a")


async def test_a_kind_that_is_not_there_yet_is_waited_for() -> None:
    async with KubernetesServer() as server:
        later = server.resource("Site")
        server.resources.remove(later)
        async with watching(server, Watch("example.com/v1/Site")) as scene:
            await scene.passing(lambda: scene.clock.steady_us() > 60_000_000)
            server.resources.append(later)
            server.create("Site", "home")

            assert set(await scene.listed()) == {"default/home"}


async def test_a_token_is_sent_and_a_wrong_one_is_said(caplog: pytest.LogCaptureFixture) -> None:
    async with KubernetesServer() as server:
        server.token = "secret"
        server.create("Pod", "a")
        async with watching(server, PODS) as scene:
            assert set(await scene.listed()) == {"default/a"}
            server.token = "changed"
            server.cut_watches()
            await scene.passing(lambda: "Unauthorized" in caplog.text)

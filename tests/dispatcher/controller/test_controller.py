"""A controller against the fake API server: what a reconciler reads and writes, and what becomes of what it raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from dispatcher import Attempt, Cluster, Controller, ControllerSettings, DispatcherSettings
from tests.fakes.kubernetes.faults import Fault
from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.dispatching import Recorder, until
from workqueue import NonRetriableError, QueueKey, QueueKeys
from workqueue.errors import InvalidSettingError
from workqueue.outcomes import Outcome
from workqueue.sources.kubernetes import Watch, owner

SITE = "example.com/v1/Site"
SITES, PAGES = Watch(SITE), Watch("v1/ConfigMap", keys=owner("Site"))
ONE_TRY = DispatcherSettings(max_retry=1)


@asynccontextmanager
async def running(
    server: KubernetesServer,
    folder: Path,
    reconcile: Callable[[Cluster, str, Attempt], Awaitable[Outcome | None]],
    **options: Any,
) -> AsyncIterator[asyncio.Task[None]]:
    """A controller of sites and their pages, until the block ends."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(server.kubeconfig())
    settings = ControllerSettings(kubeconfig=kubeconfig, **options.pop("settings", {}))
    controller = Controller([SITES, PAGES], reconcile, settings=settings, **options)
    task = asyncio.create_task(controller.run())
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_reconciler_is_called_once_every_cache_is_complete(tmp_path: Path) -> None:
    seen: list[int] = []

    async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> None:
        seen.append(sum(cluster.get("v1/ConfigMap", f"default/page-{number}") is not None for number in range(3)))

    async with KubernetesServer() as server:
        server.create("Site", "home")
        for number in range(3):
            server.create("ConfigMap", f"page-{number}")
        slow = asyncio.Event()
        server.faults.append(Fault("list", "configmaps", hold=slow))
        async with running(server, tmp_path, reconcile):
            await until(lambda: server.plan.count("watch", "sites") == 1)
            assert seen == []
            slow.set()
            await until(lambda: seen == [3])


async def test_a_change_of_an_object_or_of_what_it_owns_is_reconciled(tmp_path: Path) -> None:
    calls: list[str] = []

    async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> None:
        calls.append(key)

    async with KubernetesServer() as server:
        site = server.create("Site", "home")
        async with running(server, tmp_path, reconcile):
            await until(lambda: len(calls) == 1 and server.watches == 2)
            server.touch("Site", "home")
            await until(lambda: len(calls) == 2)
            reference = {"apiVersion": "example.com/v1", "kind": "Site", "name": "home", "uid": site["metadata"]["uid"]}
            server.create("ConfigMap", "page", ownerReferences=[reference])
            await until(lambda: len(calls) == 3)
    assert set(calls) == {"default/home"}


async def test_a_key_that_was_given_up_has_an_event_on_its_object_and_in_every_other_place(tmp_path: Path) -> None:
    async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> None:
        raise NonRetriableError("never") if key.endswith("dropped") else ZeroDivisionError("it does not work")

    recorder = Recorder()
    async with KubernetesServer() as server:
        for name in ("failing", "dropped"):
            server.create("Site", name)
        async with running(server, tmp_path, reconcile, dispatch=DispatcherSettings(max_retry=1), errors=recorder):
            await until(lambda: len(server.names("Event")) == 2 and len(recorder.events) == 2)
    events = {
        event["regarding"]["name"]: event
        for event in (server.read("Event", *reversed(name.split("/"))) for name in server.names("Event"))
    }
    event = events["failing"]
    assert (event["reason"], event["type"]) == ("DeadLettered", "Warning")
    assert "it does not work" in event["note"]
    assert event["regarding"]["uid"] == server.read("Site", "failing")["metadata"]["uid"]


async def test_a_conflict_is_no_failure_and_an_api_server_that_is_down_is_nobodys_fault(tmp_path: Path) -> None:
    recorder, tries = Recorder(), []

    async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> None:
        tries.append(attempt.attempts)
        site = cluster.get(SITE, key)
        assert site is not None
        if len(tries) == 1:
            server.touch("Site", "home")
            async with asyncio.TaskGroup() as group:
                group.create_task(cluster.add_finalizer(site, "example.com/x"))
        else:
            server.faults.append(Fault("get", status=503))
            await cluster.read(SITE, key)

    async with KubernetesServer() as server:
        server.create("Site", "home")
        async with running(server, tmp_path, reconcile, dispatch=ONE_TRY, errors=recorder):
            await until(lambda: len(recorder.events) == 1)
    assert tries[:2] == [1, 1]
    assert recorder.events[0].failure.infrastructure


async def test_of_two_controllers_with_queues_of_their_own_one_works_and_hands_over(tmp_path: Path) -> None:
    calls: list[str] = []

    def named(name: str) -> Callable[[Cluster, str, Attempt], Awaitable[Outcome | None]]:
        async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> None:
            calls.append(name)

        return reconcile

    async with KubernetesServer() as server:
        server.create("Site", "home")
        elected: dict[str, Any] = {"settings": {"lease": "default/sites"}}
        async with running(server, tmp_path, named("first"), settings={"lease": "default/sites"}) as first:
            await until(lambda: calls == ["first"])
            async with running(server, tmp_path, named("second"), **elected):
                await until(lambda: server.plan.count("get", "leases") > 3)
                assert calls == ["first"]
                first.cancel()
                await until(lambda: calls == ["first", "second"])


async def test_what_a_reconciler_asks_for_is_done(tmp_path: Path) -> None:
    calls: list[str] = []

    async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> Outcome | None:
        calls.append(key)
        return QueueKeys(QueueKey("default/other")) if key == "default/home" else None

    async with KubernetesServer() as server:
        server.create("Site", "home")
        async with running(server, tmp_path, reconcile):
            await until(lambda: calls == ["default/home", "default/other"])


async def test_a_controller_answers_probes_and_scrapes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def reconcile(cluster: Cluster, key: str, attempt: Attempt) -> None:
        return None

    caplog.set_level("INFO")
    async with KubernetesServer() as server, ClientSession() as session:
        server.create("Site", "home")
        async with running(server, tmp_path, reconcile, settings={"http_port": 0, "name": "sites"}):
            await until(lambda: "health and metrics on" in caplog.text and server.watches == 2)
            port = caplog.text.partition("health and metrics on 127.0.0.1:")[2].split()[0]
            for path in ("healthz", "readyz"):
                async with session.get(f"http://127.0.0.1:{port}/{path}") as answer:
                    assert answer.status == 200
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                assert (
                    'workqueue_added_keys{queue_name="default",revision_name="unknown",service_name="sites"}'
                    in await answer.text()
                )


def test_a_controller_of_nothing_and_a_lease_without_a_namespace_are_refused() -> None:
    with pytest.raises(InvalidSettingError, match="watch"):
        Controller([], None)  # type: ignore[arg-type]
    with pytest.raises(InvalidSettingError, match="namespace/name"):
        ControllerSettings(lease="sites")

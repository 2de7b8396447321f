"""What a reconciler writes to a cluster may be written twice, and never over what it has not seen."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dispatcher import Cluster, ErrorEvent, Failure
from dispatcher.controller.events import KubernetesEvents
from tests.fakes.kubernetes.faults import Fault
from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.dispatching import until
from tests.support.kubernetes import connected
from workqueue.sources.kubernetes import Cache, ConflictError, Watch, label
from workqueue.sources.kubernetes.cache import Replica

SITE = "example.com/v1/Site"
WATCH = Watch(SITE, indexes={"theme": lambda site: [site["spec"]["theme"]]})


@asynccontextmanager
async def cluster(server: KubernetesServer) -> AsyncIterator[tuple[Cluster, Replica]]:
    """A cluster whose cache has what a test puts into it."""
    replica, other = Replica(WATCH), Replica(Watch(SITE, "other", keys=label("x")))
    async with connected(server) as api:
        yield Cluster(api, {other.watch: Cache(other), WATCH: Cache(replica)}, "test"), replica


def writes(server: KubernetesServer) -> int:
    return sum(server.plan.count(verb) for verb in ("create", "update", "patch", "delete"))


async def test_a_status_that_is_so_already_is_not_written() -> None:
    async with KubernetesServer() as server, cluster(server) as (ours, _):
        site = server.create("Site", "home", status={"ready": True, "kept": 1})
        assert await ours.set_status(site, {"ready": True}) == site
        assert writes(server) == 0
        written = await ours.set_status(site, {"ready": False, "message": "why"})
        assert written["status"] == {"ready": False, "kept": 1, "message": "why"}
        assert written["metadata"]["generation"] == 1


async def test_finalizers_are_added_and_removed_once_and_those_of_others_stay() -> None:
    async with KubernetesServer() as server, cluster(server) as (ours, _):
        site = server.create("Site", "home", finalizers=["others.com/x"])
        site = await ours.add_finalizer(site, "ours.com/y")
        assert site["metadata"]["finalizers"] == ["others.com/x", "ours.com/y"]
        assert await ours.add_finalizer(site, "ours.com/y") == site
        await ours.remove_finalizer(site, "ours.com/y")
        left = server.read("Site", "home")
        assert left["metadata"]["finalizers"] == ["others.com/x"]
        await ours.remove_finalizer(left, "ours.com/y")
        assert writes(server) == 2


async def test_a_finalizer_that_somebody_else_has_just_added_is_not_lost() -> None:
    async with KubernetesServer() as server, cluster(server) as (ours, _):
        seen = server.create("Site", "home")
        server.store.update(
            server.resource("Site"),
            ("default", "home"),
            {"metadata": {**seen["metadata"], "finalizers": ["new.com/z"]}},
        )
        with pytest.raises(ConflictError):
            await ours.add_finalizer(seen, "ours.com/y")
        assert server.read("Site", "home")["metadata"]["finalizers"] == ["new.com/z"]


async def test_the_last_finalizer_lets_an_object_vanish_even_when_it_has_vanished() -> None:
    async with KubernetesServer() as server, cluster(server) as (ours, _):
        server.create("Site", "home", finalizers=["ours.com/y"])
        server.delete("Site", "home")
        marked = server.read("Site", "home")
        assert ours.is_deleted(marked)
        await ours.remove_finalizer(marked, "ours.com/y")
        assert server.names("Site") == []
        await ours.remove_finalizer(marked, "ours.com/y")


async def test_an_apply_creates_then_changes_then_leaves_alone_and_names_the_owner() -> None:
    page: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "page"}, "data": {"a": "1"}}
    async with KubernetesServer() as server, cluster(server) as (ours, _):
        site = server.create("Site", "home", "prod")
        first = await ours.apply(page, owner=site)
        second = await ours.apply(page, owner=site)
        assert first == second
        [reference] = second["metadata"]["ownerReferences"]
        assert (reference["name"], reference["uid"], reference["controller"]) == ("home", site["metadata"]["uid"], True)
        changed = await ours.apply({**page, "data": {"a": "2"}}, owner=site)
        assert changed["data"] == server.read("ConfigMap", "page", "prod")["data"] == {"a": "2"}
        assert page["metadata"] == {"name": "page"}


async def test_a_delete_is_of_this_very_object() -> None:
    async with KubernetesServer() as server, cluster(server) as (ours, _):
        old = server.create("Site", "home")
        server.delete("Site", "home")
        await ours.delete(old)
        new = server.create("Site", "home")
        with pytest.raises(ConflictError):
            await ours.delete(old)
        assert server.names("Site") == ["default/home"]
        await ours.delete(new)
        assert server.names("Site") == []


async def test_objects_are_read_from_caches_and_on_request_from_the_server() -> None:
    async with KubernetesServer() as server, cluster(server) as (ours, replica):
        site = server.create("Site", "home", spec={"theme": "dark"})
        replica.put(site, json.dumps(site))
        server.touch("Site", "home", newer="yes")
        assert ours.get(SITE, "default/home") == site == ours.subject("default/home")
        assert ours.find(SITE, "theme", "dark") == [site]
        fresh = await ours.read(SITE, "default/home")
        assert fresh is not None
        assert fresh["metadata"]["labels"] == {"newer": "yes"}
        assert await ours.read(SITE, "default/absent") is None
        with pytest.raises(KeyError, match="v1/Pod"):
            ours.get("v1/Pod", "a")
        with pytest.raises(KeyError, match="colour"):
            ours.find(SITE, "colour", "red")


def failed(key: str, action: Any = "dead-lettered") -> ErrorEvent:
    return ErrorEvent(key, 3, Failure("x" * 5000, action), datetime.now(UTC))


async def test_events_that_cannot_be_sent_are_counted_and_never_raise() -> None:
    async with KubernetesServer() as server, cluster(server) as (ours, replica):
        site = server.create("Site", "home", spec={"theme": "dark"})
        replica.put(site, json.dumps(site))
        events = KubernetesEvents(ours, "pod-1")
        server.faults.append(Fault("create", "events", status=403))
        for event in (failed("default/home"), failed("default/absent"), failed("default/home", "requeued")):
            events.send(event)
        await events.flush(timedelta(seconds=10))
        events.send(failed("default/home"))
        await until(lambda: events.results == {"sent": 1, "failed": 1, "dropped": 1})
        await events.give_up()
        [name] = server.names("Event")
        assert len(server.read("Event", *reversed(name.split("/")))["note"]) == 1024

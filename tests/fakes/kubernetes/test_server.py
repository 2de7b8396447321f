"""The fake Kubernetes API server keeps the rules that controllers lean on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.kubernetes import connected
from workqueue.sources.kubernetes import (
    API,
    ConflictError,
    ForbiddenError,
    GoneError,
    Kind,
    KubernetesError,
    NotFoundError,
)

LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
SITES = "/apis/example.com/v1/namespaces/default/sites"


async def made(api: API, path: str, **fields: Any) -> dict[str, Any]:
    metadata = {"name": "one", **fields.pop("metadata", {})}
    return await api.request("POST", path, body={"metadata": metadata, **fields})


async def test_a_name_is_taken_once() -> None:
    async with KubernetesServer() as server, connected(server) as api:
        await made(api, LEASES)
        with pytest.raises(ConflictError, match="already exists"):
            await made(api, LEASES)


async def test_an_update_of_an_old_version_is_a_conflict_and_changes_nothing() -> None:
    async with KubernetesServer() as server, connected(server) as api:
        old = await made(api, LEASES, spec={"holderIdentity": "a"})
        await api.request("PUT", f"{LEASES}/one", body={**old, "spec": {"holderIdentity": "b"}})
        with pytest.raises(ConflictError, match="modified"):
            await api.request("PUT", f"{LEASES}/one", body={**old, "spec": {"holderIdentity": "c"}})
        assert server.read("Lease", "one")["spec"] == {"holderIdentity": "b"}


async def test_a_lease_is_never_updated_without_a_version() -> None:
    async with KubernetesServer() as server, connected(server) as api:
        await made(api, LEASES)
        with pytest.raises(KubernetesError, match="must be specified for an update"):
            await api.request("PUT", f"{LEASES}/one", body={"metadata": {"name": "one"}, "spec": {}})


async def test_status_and_the_rest_are_written_apart_and_only_the_rest_has_generations() -> None:
    async with KubernetesServer() as server, connected(server) as api:
        await made(api, SITES, spec={"size": 1}, status={"ignored": True})
        await api.patch(f"{SITES}/one", {"spec": {"size": 2}, "status": {"ready": True}})
        await api.patch(f"{SITES}/one/status", {"spec": {"size": 3}, "status": {"seen": 2}})
        site = server.read("Site", "one")
        assert (site["spec"], site["metadata"]["generation"]) == ({"size": 2}, 2)
        assert site["status"] == {"seen": 2}


async def test_what_has_a_finalizer_is_only_marked_and_goes_with_its_last_finalizer() -> None:
    async with KubernetesServer() as server, connected(server) as api:
        await made(api, SITES, metadata={"finalizers": ["example.com/cleanup"]})
        await api.request("DELETE", f"{SITES}/one")
        assert "deletionTimestamp" in server.read("Site", "one")["metadata"]
        await api.patch(f"{SITES}/one", {"metadata": {"finalizers": []}})
        with pytest.raises(NotFoundError):
            await api.request("GET", f"{SITES}/one")


async def test_a_write_that_changes_nothing_has_no_new_version() -> None:
    async with KubernetesServer() as server, connected(server) as api:
        before = await made(api, SITES, spec={"size": 1})
        after = await api.patch(f"{SITES}/one", {"spec": {"size": 1}})
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        assert server.store.revision == int(before["metadata"]["resourceVersion"])


async def test_the_next_page_of_a_list_is_as_of_its_first_page_or_gone() -> None:
    async with KubernetesServer() as server, connected(server) as api:
        for name in ("a", "b", "c"):
            server.create("Site", name)
        first = await api.request("GET", SITES, {"limit": "1"})
        server.delete("Site", "b")
        second = await api.request("GET", SITES, {"limit": "1", "continue": first["metadata"]["continue"]})
        assert second["items"][0]["metadata"]["name"] == "b"
        server.compact()
        with pytest.raises(GoneError):
            await api.request("GET", SITES, {"limit": "1", "continue": second["metadata"]["continue"]})


async def test_discovery_says_where_a_kind_is_and_permissions_are_per_verb_and_resource() -> None:
    async with KubernetesServer() as server, connected(server) as api:
        assert (await api.resource(Kind.parse("v1/Namespace"))).path("x", "n") == "/api/v1/namespaces/n"
        assert (await api.resource(Kind.parse("example.com/v1/Site"))).path("default") == SITES
        with pytest.raises(NotFoundError):
            await api.resource(Kind.parse("example.com/v1/Absent"))
        server.forbidden.add(("list", "sites"))
        with pytest.raises(ForbiddenError, match='cannot list resource "sites"'):
            await api.request("GET", SITES)

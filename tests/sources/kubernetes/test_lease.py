"""The lease of an election as a Lease object: conditional writes, and what else is in the object stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial

import pytest

from tests.fakes.kubernetes.faults import Fault
from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.kubernetes import connected, passing
from workqueue.errors import StoreUnavailableError, StoreUnusableError
from workqueue.leader import Elector, LeaderLease
from workqueue.sources.kubernetes.election import KubernetesLease
from workqueue.testing import FakeClock

LEASE = LeaderLease("me", 15, acquired_us=1_750_000_000_000_001, renewed_us=1_750_000_000_500_000, transitions=3)


@asynccontextmanager
async def lease(server: KubernetesServer) -> AsyncIterator[KubernetesLease]:
    async with connected(server) as api:
        yield KubernetesLease(api, "default", "source")


async def test_a_lease_that_is_not_there_is_free_and_is_created_as_kubectl_shows_it() -> None:
    async with KubernetesServer() as server, lease(server) as ours:
        assert await ours.read() == LeaderLease()
        written = await ours.write(LEASE)
        assert written == await ours.read()
        assert server.read("Lease", "source")["spec"] == {
            "holderIdentity": "me",
            "leaseDurationSeconds": 15,
            "acquireTime": "2025-06-15T15:06:40.000001Z",
            "renewTime": "2025-06-15T15:06:40.500000Z",
            "leaseTransitions": 3,
        }


async def test_of_two_who_create_or_take_a_lease_one_gets_it() -> None:
    async with KubernetesServer() as server, lease(server) as one, lease(server) as two:
        seen = [await one.read(), await two.read()]
        assert await one.write(LEASE) is not None
        assert await two.write(LEASE) is None
        seen = [await one.read(), await two.read()]
        assert await two.write(seen[1]) is not None
        server.touch("Lease", "source")
        assert await one.write(seen[0]) is None


async def test_a_lease_that_was_deleted_is_not_updated() -> None:
    async with KubernetesServer() as server, lease(server) as ours:
        written = await ours.write(LEASE)
        assert written is not None
        server.delete("Lease", "source")
        assert await ours.write(written) is None
        assert await ours.read() == LeaderLease()


async def test_what_else_is_in_the_object_is_kept() -> None:
    async with KubernetesServer() as server, lease(server) as ours:
        server.create(
            "Lease", "source", labels={"team": "a"}, spec={"holderIdentity": None, "strategy": "OldestVersion"}
        )
        assert (await ours.read()).holder == ""
        await ours.write(LeaderLease("me", 15, version=(await ours.read()).version))
        stored = server.read("Lease", "source")
        assert stored["metadata"]["labels"] == {"team": "a"}
        assert (stored["spec"]["strategy"], stored["spec"]["holderIdentity"]) == ("OldestVersion", "me")


@pytest.mark.parametrize("verb", ["get", "create"])
async def test_a_missing_permission_is_an_operators_business(verb: str) -> None:
    async with KubernetesServer() as server, lease(server) as ours:
        server.forbidden.add((verb, "leases"))
        with pytest.raises(StoreUnusableError, match=f'cannot {verb} resource "leases"'):
            await (ours.read() if verb == "get" else ours.write(LEASE))


async def test_a_server_that_does_not_answer_may_answer_later() -> None:
    async with KubernetesServer() as server, lease(server) as ours:
        server.faults.append(Fault("create", status=503))
        with pytest.raises(StoreUnavailableError):
            await ours.write(LEASE)
        assert await ours.write(LEASE) is not None


def renewed(server: KubernetesServer, times: int) -> bool:
    return server.plan.count("update") > times


async def test_an_election_survives_lost_answers_conflicts_and_a_restart_of_the_api_server() -> None:
    async def work() -> None:
        began.append(clock.steady_us())
        await asyncio.Event().wait()

    began: list[int] = []
    clock = FakeClock()
    async with KubernetesServer() as server, lease(server) as ours:
        elector = Elector(ours, "pod", clock=clock)
        running = asyncio.create_task(elector.run(work))
        await passing(clock, lambda: elector.leading, timedelta(milliseconds=100))
        for fault in (Fault("update", drop="after"), Fault("update", status=500), Fault("update", status=409)):
            server.faults.append(fault)
            renewals = server.plan.count("update") + 2
            await passing(clock, partial(renewed, server, renewals), timedelta(milliseconds=100))
        await server.stop()
        clock.advance(timedelta(seconds=3))
        await server.start()
        await passing(clock, partial(renewed, server, 12), timedelta(milliseconds=100))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(began) == 1
        assert server.read("Lease", "source")["spec"]["holderIdentity"] == ""

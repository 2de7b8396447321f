"""What the GCS emulator adds for tests: faults, counts and limits."""

from __future__ import annotations

import asyncio
import http.client
from concurrent.futures import ThreadPoolExecutor

import aiohttp
import pytest

from tests.fakes.gcs.faults import Fault
from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.requests import Call
from tests.fakes.gcs.server import GcsServer

# Faults


@pytest.mark.parametrize(
    ("status", "reason"),
    [(429, "rateLimitExceeded"), (500, "backendError"), (503, "backendError"), (412, "conditionNotMet")],
)
def test_a_planned_status_is_answered_in_the_documented_form_and_nothing_happens(
    server: GcsServer, client: RawClient, status: int, reason: str
) -> None:
    """json_api/v1/status-codes."""
    server.faults.add(Fault("insert", status=status))
    answer = client.insert("a")
    assert (answer.status, answer.reason, server.store.find("wq", "a")) == (status, reason, None)


def test_a_fault_hits_once_unless_told_otherwise(server: GcsServer, client: RawClient) -> None:
    server.faults.add(Fault("insert", status=503))
    assert [client.insert("a").status for _ in range(3)] == [503, 200, 200]


def test_a_fault_can_wait_for_the_nth_match_and_hit_several(server: GcsServer, client: RawClient) -> None:
    server.faults.add(Fault("insert", nth=2, times=2, status=503))
    assert [client.insert("a").status for _ in range(5)] == [200, 503, 503, 200, 200]


def test_a_fault_without_end_lasts_until_it_is_cleared(server: GcsServer, client: RawClient) -> None:
    server.faults.add(Fault(times=None, status=503))
    assert [client.insert("a").status, client.list_objects().status, client.get("a").status] == [503, 503, 503]
    server.faults.clear()
    assert client.insert("a").status == 200


@pytest.mark.parametrize(
    ("fault", "hit"),
    [
        (Fault("copy", status=503), True),
        (Fault("insert|copy", status=503), True),
        (Fault("delete", status=503), False),
        (Fault(method="POST", status=503), True),
        (Fault(method="GET", status=503), False),
        (Fault(prefix="in-progress/", status=503), True),
        (Fault(prefix="queued/", status=503), False),
        (Fault(source="queued/", status=503), True),
        (Fault(source="in-progress/", status=503), False),
    ],
    ids=lambda value: value if isinstance(value, bool) else None,
)
def test_a_fault_meets_what_it_names(server: GcsServer, client: RawClient, fault: Fault, hit: bool) -> None:
    server.store.put("wq", "queued/a")
    server.faults.add(fault)
    assert client.copy("queued/a", "in-progress/a").status == (503 if hit else 200)


def test_a_request_dropped_before_processing_changes_nothing(server: GcsServer, client: RawClient) -> None:
    server.faults.add(Fault("insert", drop="before"))
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        client.insert("a")
    assert client.get("a").status == 404


def test_a_lost_answer_leaves_the_change_in_place(server: GcsServer, client: RawClient) -> None:
    server.faults.add(Fault("insert", drop="after"))
    with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
        client.insert("a", ifGenerationMatch=0)
    assert client.insert("a", ifGenerationMatch=0).status == 412


def test_a_hanging_request_goes_on_when_released(server: GcsServer, client: RawClient) -> None:
    fault = server.faults.add(Fault("insert", hang="before"))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.insert, "a")
        fault.wait()
        assert (server.store.find("wq", "a"), answer.done()) == (None, False)
        fault.release()
        assert answer.result().status == 200


def test_a_request_can_hang_between_its_processing_and_its_answer(server: GcsServer, client: RawClient) -> None:
    fault = server.faults.add(Fault("insert", hang="after"))
    with ThreadPoolExecutor(1) as pool, RawClient(server.url) as other:
        answer = pool.submit(client.insert, "a")
        fault.wait()
        while other.get("a").status == 404:
            assert not answer.done()
        fault.release()
        assert answer.result().status == 200


def insert_alone(url: str) -> int:
    """Insert through a connection of its own."""
    with RawClient(url) as client:
        return client.insert("a").status


def test_a_server_that_stops_lets_no_hanging_request_hold_it_up() -> None:
    server = GcsServer()
    with ThreadPoolExecutor(1) as pool:
        with server:
            fault = server.faults.add(Fault("insert", hang="before"))
            answer = pool.submit(insert_alone, server.url)
            fault.wait()
        assert answer.exception() is not None or answer.result() == 200


def test_a_hook_lets_another_actor_in_before_a_request(server: GcsServer, client: RawClient) -> None:
    def act(call: Call) -> None:
        with RawClient(server.url) as other:
            other.insert(call.name, b"theirs")

    server.faults.add(Fault("insert", before=act))
    assert client.insert("a", b"ours", ifGenerationMatch=0).status == 412
    assert client.get("a", alt="media").body == b"theirs"


def test_a_hook_lets_another_actor_in_after_a_request(server: GcsServer, client: RawClient) -> None:
    server.faults.add(Fault("insert", after=lambda call: server.store.put("wq", call.name, body=b"theirs")))
    ours = client.insert("a", b"ours").json
    assert client.get("a", alt="media").body == b"theirs"
    assert client.delete("a", ifGenerationMatch=ours["generation"]).status == 412


async def test_a_coroutine_hook_runs_on_the_loop_that_planned_it() -> None:
    async def scenario() -> tuple[int, object]:
        ran_on: list[object] = []

        async def act(call: Call) -> None:
            ran_on.append(asyncio.get_running_loop())
            async with session.delete(f"{server.url}/storage/v1/b/wq/o/a") as answer:
                assert answer.status == 204

        server.store.put("wq", "a")
        server.faults.add(Fault("get", before=act))
        async with aiohttp.ClientSession() as session, session.get(f"{server.url}/storage/v1/b/wq/o/a") as answer:
            return answer.status, ran_on == [asyncio.get_running_loop()]

    with GcsServer() as server:
        assert await scenario() == (404, True)


def test_a_failing_hook_fails_the_test_even_if_the_client_shrugs() -> None:
    def act(_: Call) -> None:
        raise AssertionError("the other actor is unhappy")

    def scenario() -> None:
        with GcsServer() as server, RawClient(server.url) as client:
            server.faults.add(Fault("get", before=act))
            assert client.get("a").status == 500

    with pytest.raises(ExceptionGroup) as caught:
        scenario()
    assert caught.group_contains(AssertionError, match="unhappy")


def test_faults_that_met_nothing_can_be_told(server: GcsServer, client: RawClient) -> None:
    met, unmet = server.faults.add(Fault("insert", delay=0.001)), server.faults.add(Fault("insert", nth=2))
    client.insert("a")
    assert (met in server.faults.pending(), unmet in server.faults.pending()) == (False, True)


# The write rate


def test_a_second_write_to_an_object_within_a_second_is_429(server: GcsServer, client: RawClient) -> None:
    """https://cloud.google.com/storage/quotas: one write a second to one object name; gcs429."""
    server.clock.freeze()
    server.limit_writes()
    refused = [client.insert("a"), client.insert("a"), client.patch("a", {}), client.delete("a")]
    assert [answer.status for answer in refused] == [200, 429, 429, 429]
    assert (refused[1].reason, "rate limit for object mutation operations" in refused[1].message) == (
        "rateLimitExceeded",
        True,
    )
    assert client.insert("b").status == 200
    server.clock.advance(1)
    assert client.delete("a").status == 204


def test_a_write_that_was_refused_does_not_count_against_the_rate(server: GcsServer, client: RawClient) -> None:
    server.clock.freeze()
    server.store.put("wq", "a")
    server.limit_writes()
    assert [client.insert("a", ifGenerationMatch=0).status, client.delete("a").status] == [412, 204]


def test_a_burst_is_let_through_once(server: GcsServer, client: RawClient) -> None:
    server.clock.freeze()
    server.limit_writes(per_second=1, burst=3)
    assert [client.insert("a").status for _ in range(4)] == [200, 200, 200, 429]


# Counts


def test_requests_are_counted_by_operation_and_by_price(server: GcsServer, client: RawClient) -> None:
    """https://cloud.google.com/storage/pricing#operations-by-class."""
    client.insert("a")
    client.copy("a", "b")
    client.list_objects()
    client.get("a")
    client.delete("a")
    assert server.requests == {"insert": 1, "copy": 1, "list": 1, "get": 1, "delete": 1}
    assert server.log.classes == {"A": 3, "B": 1, "free": 1}


def test_the_log_tells_what_became_of_each_request(server: GcsServer, client: RawClient) -> None:
    server.faults.add(Fault("copy", status=503))
    client.insert("a")
    client.copy("a", "b")
    client.delete("missing")
    found = [(entry.operation, entry.name, entry.source, entry.status, entry.fault) for entry in server.log.entries]
    assert found == [("insert", "a", "", 200, ""), ("copy", "b", "a", 503, "503"), ("delete", "missing", "", 404, "")]


def test_a_reset_forgets_requests_and_faults_and_keeps_objects(server: GcsServer, client: RawClient) -> None:
    server.faults.add(Fault("get", status=503))
    client.insert("a")
    server.reset()
    assert (client.get("a").status, dict(server.log.requests)) == (200, {"get": 1})

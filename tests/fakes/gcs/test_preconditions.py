"""Every precondition on every method that takes it: https://cloud.google.com/storage/docs/request-preconditions.

A Match that fails is 412 `conditionNotMet`; a NotMatch that names the current number is 304, on writes as on reads (the
page makes no difference, and neither does the service); a NotMatch on an object that does not exist fails with 412
(json_api/v1/objects/insert: "If no live object exists, the precondition fails").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.fakes.gcs.raw import Answer, RawClient
from tests.fakes.gcs.server import GcsServer

Method = Callable[..., Answer]

METHODS: dict[str, Callable[[RawClient], Method]] = {
    "get": lambda client: client.get,
    "patch": lambda client: lambda name, **pins: client.patch(name, {"metadata": {"touched": "yes"}}, **pins),
    "update": lambda client: lambda name, **pins: client.update(name, {}, **pins),
    "delete": lambda client: client.delete,
    "insert": lambda client: lambda name, **pins: client.insert(name, b"new", **pins),
    "copy": lambda client: lambda name, **pins: client.copy("source", name, **pins),
    "rewrite": lambda client: lambda name, **pins: client.rewrite("source", name, **pins),
}
# On an object at generation G, metageneration 2: the pins, and the status where they fail (0: they hold).
PINS = [
    ({"ifGenerationMatch": 0}, 0),
    ({"ifGenerationMatch": 1}, 412),
    ({"ifGenerationMatch": 0, "ifMetagenerationMatch": 0}, 0),
    ({"ifGenerationMatch": 0, "ifMetagenerationMatch": 1}, 412),
    ({"ifGenerationMatch": 1, "ifMetagenerationMatch": 0}, 412),
    ({"ifMetagenerationMatch": 0}, 0),
    ({"ifMetagenerationMatch": -1}, 412),
    ({"ifGenerationNotMatch": 1}, 0),
    ({"ifGenerationNotMatch": 0}, 304),
    ({"ifMetagenerationNotMatch": 1}, 0),
    ({"ifMetagenerationNotMatch": 0}, 304),
    ({"ifGenerationMatch": 0, "ifMetagenerationNotMatch": 0}, 304),
]


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with GcsServer() as running:
        running.store.put("wq", "source", {"from": "source"}, b"source")
        yield running


@pytest.fixture
def client(server: GcsServer) -> Iterator[RawClient]:
    with RawClient(server.url) as raw:
        yield raw


def existing(client: RawClient, name: str) -> dict[str, str]:
    """Make the object, at metageneration 2."""
    client.insert(name, b"old")
    answer: dict[str, str] = client.patch(name, {}).json
    return answer


def absolute(pins: dict[str, int], stored: dict[str, str]) -> dict[str, int]:
    """PINS are relative to the object's own numbers."""
    return {
        name: offset + int(stored["metageneration" if "Meta" in name else "generation"])
        for name, offset in pins.items()
    }


@pytest.mark.parametrize("operation", METHODS)
@pytest.mark.parametrize(("pins", "status"), PINS, ids=str)
def test_a_precondition_is_held_against_the_live_object(
    server: GcsServer, client: RawClient, operation: str, pins: dict[str, int], status: int
) -> None:
    stored = existing(client, "object")
    before = server.store.find("wq", "object")
    answer = METHODS[operation](client)("object", **absolute(pins, stored))
    assert answer.status == (status or (204 if operation == "delete" else 200))
    if status:
        assert server.store.find("wq", "object") == before


@pytest.mark.parametrize("operation", ["insert", "copy", "rewrite"])
@pytest.mark.parametrize(
    ("pins", "status"),
    [
        ({"ifGenerationMatch": 0}, 200),
        ({"ifGenerationMatch": 1}, 412),
        ({"ifGenerationNotMatch": 0}, 412),
        ({"ifGenerationNotMatch": 1}, 412),
        ({"ifMetagenerationMatch": 1}, 412),
        ({"ifMetagenerationNotMatch": 1}, 412),
    ],
    ids=str,
)
def test_a_precondition_on_a_target_that_does_not_exist(
    client: RawClient, operation: str, pins: dict[str, int], status: int
) -> None:
    assert METHODS[operation](client)("missing", **pins).status == status
    assert client.get("missing").status == (200 if status == 200 else 404)


@pytest.mark.parametrize("operation", ["insert", "copy", "rewrite"])
def test_if_generation_match_zero_never_replaces(client: RawClient, operation: str) -> None:
    client.insert("object", b"old")
    answer = METHODS[operation](client)("object", ifGenerationMatch=0)
    assert (answer.status, answer.reason) == (412, "conditionNotMet")
    assert client.get("object", alt="media").body == b"old"


@pytest.mark.parametrize("operation", ["get", "patch", "update", "delete"])
def test_a_missing_object_is_404_whatever_is_pinned(client: RawClient, operation: str) -> None:
    for pins in ({"ifGenerationMatch": 0}, {"ifGenerationMatch": 7}, {"ifMetagenerationNotMatch": 7}):
        assert METHODS[operation](client)("missing", **pins).status == 404


@pytest.mark.parametrize("operation", ["get", "patch", "update", "delete"])
def test_the_generation_parameter_names_one_generation(client: RawClient, operation: str) -> None:
    """json_api/v1/objects/get and its siblings: another generation than the live one does not exist here."""
    live = int(existing(client, "object")["generation"])
    assert METHODS[operation](client)("object", generation=live - 1).status == 404
    assert METHODS[operation](client)("object", generation=live).status in (200, 204)


@pytest.mark.parametrize("operation", ["copy", "rewrite"])
@pytest.mark.parametrize(("pins", "status"), PINS, ids=str)
def test_a_source_precondition_is_held_against_the_source(
    client: RawClient, operation: str, pins: dict[str, int], status: int
) -> None:
    """json_api/v1/objects/copy: ifSource… pins."""
    stored = existing(client, "source")
    of_source = {name.replace("if", "ifSource"): number for name, number in absolute(pins, stored).items()}
    assert METHODS[operation](client)("target", **of_source).status == (status or 200)
    assert (client.get("target").status == 200) == (not status)


def test_a_copy_pinned_on_both_sides_fails_when_either_side_moved(client: RawClient) -> None:
    source = existing(client, "source")
    pins = {"ifSourceGenerationMatch": source["generation"], "ifSourceMetagenerationMatch": 2, "ifGenerationMatch": 0}
    assert client.copy("source", "target", **pins).status == 200
    assert client.copy("source", "target", **pins).status == 412
    client.delete("target")
    client.patch("source", {})
    assert client.copy("source", "target", **pins).status == 412


def test_the_412_is_the_documented_document(client: RawClient) -> None:
    """json_api/v1/status-codes: 412, conditionNotMet."""
    error = client.insert("source", ifGenerationMatch=0).json["error"]
    assert error["code"] == 412
    assert error["errors"] == [
        {
            "domain": "global",
            "reason": "conditionNotMet",
            "message": "At least one of the pre-conditions you specified did not hold.",
            "locationType": "header",
            "location": "If-Match",
        }
    ]


def test_the_304_has_no_body(server: GcsServer, client: RawClient) -> None:
    """RFC 9110 section 15.4.5."""
    stored = server.store.find("wq", "source")
    assert stored is not None
    assert client.get("source", ifGenerationNotMatch=stored.generation).body == b""


def test_of_many_racing_creators_exactly_one_wins(server: GcsServer) -> None:
    """consistency: one object, one atomic step."""

    def create(_: int) -> int:
        with RawClient(server.url) as client:
            return client.insert("contended", ifGenerationMatch=0).status

    with ThreadPoolExecutor(8) as pool:
        statuses = sorted(pool.map(create, range(24)))
    assert statuses == [200] + [412] * 23


def test_of_many_racing_patches_pinned_to_one_metageneration_exactly_one_wins(server: GcsServer) -> None:
    """consistency: a read-modify-write that is pinned loses no update."""

    def patch(number: int) -> int:
        with RawClient(server.url) as client:
            return client.patch("source", {"metadata": {"n": str(number)}}, ifMetagenerationMatch=1).status

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(patch, range(16))) == [200] + [412] * 15

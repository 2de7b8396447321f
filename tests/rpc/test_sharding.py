"""One receiver over many: where keys go, and what a dead shard fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest

from tests.support.dispatching import opened
from tests.support.grpc import FailingQueue, client_of, nonsense, on_loop, refused, stub_of
from workqueue import InvalidOptionsError, KeyNotFoundError, KeyStatus, Options
from workqueue.access.security import ServerSecurity
from workqueue.access.tokens import StaticTokens
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidSettingError, StoreUnavailableError, StoreUnusableError
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.receiver import receive
from workqueue.rpc.server import GrpcServer
from workqueue.rpc.sharding import HASHES, by_fnv, by_rendezvous, fnv1a_32, route

# key: its hash, and its shard of 1, 2, 3, 5, 7 and 16; printed by a Go program that chooses as the Go hyperqueue does.
GOS_CHOICES: dict[str, tuple[int, list[int]]] = {
    "": (2166136261, [0, 1, 1, 1, 2, 5]),
    "a": (3826002220, [0, 0, 1, 0, 5, 12]),
    "b": (3876335077, [0, 1, 1, 2, 6, 5]),
    "ab": (1294271946, [0, 0, 0, 1, 2, 10]),
    "key-0": (1491088857, [0, 1, 0, 2, 6, 9]),
    "key-1": (1474311238, [0, 0, 1, 3, 1, 6]),
    "foo/bar": (3349617645, [0, 1, 0, 0, 3, 13]),
    "github.com/org/repo": (4258831997, [0, 1, 2, 2, 0, 13]),
    "The quick brown fox": (2924308450, [0, 0, 1, 0, 0, 2]),
    "résumé": (3068721788, [0, 0, 2, 3, 6, 12]),
    "日本語": (2153733351, [0, 1, 0, 1, 0, 7]),
    "🦊": (236129112, [0, 0, 0, 2, 2, 8]),
    "x" * 1000: (131170661, [0, 1, 2, 1, 6, 5]),
}
KEYS = [f"key-{number}" for number in range(1000)]


@pytest.mark.parametrize("key", GOS_CHOICES, ids=lambda key: f"{key[:10]}:{len(key)}")
def test_a_key_goes_where_go_puts_it(key: str) -> None:
    hashed, shards = GOS_CHOICES[key]

    assert fnv1a_32(key.encode()) == hashed
    assert [by_fnv(["shard"] * count)(key) for count in (1, 2, 3, 5, 7, 16)] == shards


@pytest.mark.parametrize("name", HASHES)
def test_every_shard_gets_its_share(name: str) -> None:
    choose = HASHES[name]([f"wq-{number}:80" for number in range(4)])

    assert all(200 < count < 300 for count in Counter(map(choose, KEYS)).values())


@pytest.mark.parametrize("gone", [0, 2, 4])
def test_rendezvous_moves_only_the_keys_of_the_shard_that_goes(gone: int) -> None:
    shards = [f"wq-{number}:80" for number in range(5)]
    rest = shards[:gone] + shards[gone + 1 :]
    before, after = by_rendezvous(shards), by_rendezvous(rest)

    moved = [key for key in KEYS if shards[before(key)] != rest[after(key)]]

    assert moved == [key for key in KEYS if before(key) == gone]
    assert 120 < len(moved) < 280


def test_rendezvous_does_not_care_about_the_order_of_shards() -> None:
    shards = ["a:80", "b:80", "c:80"]
    one, other = by_rendezvous(shards), by_rendezvous(shards[::-1])

    assert [shards[one(key)] for key in KEYS] == [shards[::-1][other(key)] for key in KEYS]


@asynccontextmanager
async def routed(
    queues: Sequence[MemoryQueue], hashing: str = "fnv"
) -> AsyncIterator[tuple[GrpcServer, list[GrpcServer]]]:
    """A router before receivers of `queues`."""
    async with AsyncExitStack() as stack:
        shards = [await stack.enter_async_context(receive(queue, port=0)) for queue in queues]
        addresses = [f"grpc://127.0.0.1:{shard.port}" for shard in shards]
        yield await stack.enter_async_context(route(addresses, port=0, hashing=hashing)), shards


@pytest.mark.parametrize("hashing", HASHES)
@on_loop
async def test_each_key_is_kept_by_one_shard_which_is_also_asked_for_it(hashing: str) -> None:
    queues = [opened(MemoryQueue()) for _ in range(3)]
    async with routed(queues, hashing) as (router, _), client_of(router) as client:
        await client.queue_many((key, Options()) for key in KEYS[:60] * 2)
        states = [await client.get(key) for key in KEYS[:60]]

    counts = [(await queue.counts()).queued for queue in queues]
    assert sum(counts) == 60
    assert min(counts) > 5
    assert {state.status for state in states} == {KeyStatus.QUEUED}


@on_loop
async def test_an_enqueue_passes_through_whole() -> None:
    queue = opened(MemoryQueue())
    async with routed([queue]) as (router, _), client_of(router) as client:
        await client.queue("k", Options(priority=5, payload=b"p", meta={"a": "b"}))

    state = await queue.get("k")
    assert (state.priority, state.payload, dict(state.meta)) == (5, b"p", {"a": "b"})


@on_loop
async def test_a_dead_shard_fails_only_its_own_keys() -> None:
    queues = [opened(MemoryQueue()) for _ in range(3)]
    choose = by_fnv(["shard"] * 3)
    async with routed(queues) as (router, shards), client_of(router) as client:
        await shards[1].__aexit__(None, None, None)
        for key in KEYS[:30]:
            if choose(key) == 1:
                with pytest.raises(StoreUnavailableError, match=f"shard grpc://127.0.0.1:{shards[1].port}: "):
                    await client.queue(key)
            else:
                await client.queue(key)

    expected = Counter(choose(key) for key in KEYS[:30])
    assert [(await queue.counts()).queued for queue in queues] == [expected[0], 0, expected[2]]


@on_loop
async def test_what_a_shard_refuses_is_refused_in_its_words() -> None:
    async with routed([opened(MemoryQueue())]) as (router, _), client_of(router) as client, stub_of(router) as stub:
        with pytest.raises(KeyNotFoundError, match=r"^no key 'nobody' in this queue$"):
            await client.get("nobody")
        with pytest.raises(InvalidOptionsError, match=r"^the payload has"):
            await client.queue("k", Options(payload=b"x" * 300_000))
        error = await refused(stub.Process(pb.ProcessRequest(key="")))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@on_loop
async def test_a_shard_whose_store_is_down_is_named() -> None:
    queue = opened(FailingQueue())
    queue.error = StoreUnavailableError("disk full")
    async with routed([queue]) as (router, _), client_of(router) as client:
        with pytest.raises(StoreUnavailableError, match=r"shard grpc://.*: disk full"):
            await client.queue("k")


@on_loop
async def test_a_shard_that_does_not_accept_the_router_is_the_routers_trouble() -> None:
    security = ServerSecurity(tokens=StaticTokens(["secret"]))
    async with (
        receive(opened(MemoryQueue()), port=0, security=security) as shard,
        route([f"grpc://127.0.0.1:{shard.port}"], port=0) as router,
        client_of(router) as client,
    ):
        with pytest.raises(
            StoreUnusableError, match=r"has a store that does not work: shard grpc://.*: no bearer token"
        ):
            await client.queue("k")


async def test_a_shard_whose_answer_cannot_be_read_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async with nonsense() as shard, route([shard], port=0) as router, client_of(router) as client:
        with pytest.raises(StoreUnusableError, match=r"shard grpc://.*: its answer cannot be read"):
            await client.queue("k")

    assert "Traceback" not in caplog.text


@on_loop
async def test_a_shard_that_hangs_is_given_up_at_the_callers_deadline() -> None:
    class HangingQueue(MemoryQueue):
        async def queue(self, key: str, options: Options = Options()) -> None:
            await asyncio.Event().wait()

    async with routed([HangingQueue(), opened(MemoryQueue())]) as (router, _), stub_of(router) as stub:
        hanging = asyncio.ensure_future(refused(stub.Process(pb.ProcessRequest(key="a"), timeout=0.3)))
        await stub.Process(pb.ProcessRequest(key="b"))
        assert (await hanging).code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize(
    ("shards", "hashing", "why"),
    [
        ([], "fnv", "at least one shard"),
        (["grpc://a:1", "grpc://a:1"], "fnv", "twice"),
        (["http://a", "grpc://a:80"], "fnv", "twice"),
        (["a:1"], "fnv", "no address"),
        (["grpc://a:1"], "md5", "fnv or rendezvous"),
    ],
    ids=["none", "twice", "same place", "no address", "hash"],
)
@on_loop
async def test_wrong_settings_are_refused_with_one_line(shards: list[str], hashing: str, why: str) -> None:
    with pytest.raises(InvalidSettingError, match=why):
        await route(shards, hashing=hashing).__aenter__()

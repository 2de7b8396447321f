"""Stage 1: one receiver over many: each key belongs to one of N shards, and a dead shard fails only its own keys.

`fnv` places keys as the Go hyperqueue does, so that both can stand before the same shards. `rendezvous` moves only 1/N
of the keys when a shard is added or removed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, TypeVar

import grpc

from workqueue.access.addresses import join_host_port
from workqueue.access.security import ClientSecurity, ServerSecurity
from workqueue.errors import InvalidSettingError
from workqueue.options import check_type
from workqueue.readiness import NO_KEY, Readiness, any_of
from workqueue.rpc.batches import too_large
from workqueue.rpc.channel import Address, open_channel
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceServicer
from workqueue.rpc.receiver import take_over_trace
from workqueue.rpc.served_stream import Answer, ServedStreams, TimeLeft, answered
from workqueue.rpc.server import GrpcServer, Listen
from workqueue.rpc.statuses import Refusal, of_shard
from workqueue.rpc.streamed_calls import StreamedCalls
from workqueue.rpc.stub import stub_on
from workqueue.safe_text import describe

if TYPE_CHECKING:
    from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceAsyncStub

__all__ = ["HASHES", "Choose", "Router", "Shard", "by_fnv", "by_rendezvous", "fnv1a_32", "route"]

Choose = Callable[[str], int]
"""Given a key, the index of its shard."""

_Context = grpc.aio.ServicerContext[Any, Any]

_T = TypeVar("_T")
_TIMEOUT_SECONDS = 30.0
_PATIENCE_SECONDS = 3.0
_WORKS = frozenset({grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED})  # the latter: it has no GetKeyState
_IN_TIME = 0.9  # of the time that the caller has left, so that it learns which shard it was


def fnv1a_32(data: bytes) -> int:
    """The 32-bit FNV-1a hash (Fowler, Noll, Vo; draft-eastlake-fnv)."""
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def by_fnv(shards: Sequence[str]) -> Choose:
    """`fnv1a_32(key) % N`: what counts is the number of shards and their order."""
    count = len(shards)
    return lambda key: fnv1a_32(key.encode()) % count


def by_rendezvous(shards: Sequence[str]) -> Choose:
    """The shard that scores highest for the key: what counts is each shard's address, not its place in the list.

    Thaler and Ravishankar, "A Name-Based Mapping Scheme for Rendezvous" (1996).
    """
    seeds = [blake2b(shard.encode() + b"\0", digest_size=8) for shard in shards]

    def choose(key: str) -> int:
        encoded = key.encode()
        return max(range(len(seeds)), key=lambda index: _score(seeds[index], encoded))

    return choose


def _score(seed: blake2b, key: bytes) -> bytes:
    hashed = seed.copy()
    hashed.update(key)
    return hashed.digest()


HASHES: dict[str, Callable[[Sequence[str]], Choose]] = {"fnv": by_fnv, "rendezvous": by_rendezvous}
"""The ways to place keys, by the names that settings use."""


@asynccontextmanager
async def route(
    shards: Sequence[str],
    *,
    hashing: str = "fnv",
    host: str = "127.0.0.1",
    port: int = 8080,
    security: ServerSecurity | None = None,
    shard_security: Callable[[str], ClientSecurity] | None = None,
) -> AsyncIterator[GrpcServer]:
    """A server that passes every call on to the shard of its key.

    Args:
        shards: addresses of receivers, as `connect` takes them; for `fnv` their order counts and must never change.
        hashing: one of `HASHES`.
        host: where to listen; another address than loopback needs TLS or `security.insecure`.
        port: 0 for any free one, found in the server's `port`.
        security: TLS and tokens of this server.
        shard_security: given a shard's address, how it is reached; an ID token is for one of them only.

    Raises:
        InvalidOptionsError: an argument is of another type.
        InvalidSettingError: there is no shard, one comes twice, an address is none, or `hashing` is unknown.
    """
    check_type("route", shards, (list, tuple), "a list of the shards' addresses")
    addresses = _distinct([Address.parse(shard) for shard in shards])
    choose = _hash_of(hashing)([join_host_port(address.host, address.port) for address in addresses])
    listen = Listen(host, port, ServerSecurity() if security is None else security)
    async with AsyncExitStack() as stack:
        secured = [shard_security(shard) if shard_security else ClientSecurity() for shard in shards]
        opened = [await _open(stack, *each) for each in zip(addresses, secured, strict=True)]
        ready = any_of([Readiness(partial(_trouble, shard), "no shard works; the log says why") for shard in opened])
        yield await stack.enter_async_context(GrpcServer(Router(opened, choose), listen, why_unready=ready))


async def _trouble(shard: Shard) -> str:
    """Why a shard cannot take keys, its store included; '' if it can. A key is looked up that need not be there."""
    try:
        request = pb.GetKeyStateRequest(key=NO_KEY)
        answer = await shard.stub.GetKeyState(request, timeout=_PATIENCE_SECONDS)
    except grpc.aio.AioRpcError as error:
        return "" if error.code() in _WORKS else f"shard {shard.name}: {describe(error)}"
    return "" if answer is not None else f"shard {shard.name}: its answer cannot be read"


def _hash_of(name: str) -> Callable[[Sequence[str]], Choose]:
    if name not in HASHES:
        raise InvalidSettingError(f"hash={name}: it takes {' or '.join(HASHES)}")
    return HASHES[name]


def _distinct(addresses: Sequence[Address]) -> Sequence[Address]:
    if not addresses:
        raise InvalidSettingError("a hyperqueue needs the address of at least one shard")
    if len(set(addresses)) < len(addresses):
        raise InvalidSettingError("a shard comes twice: it would get twice its share of the keys")
    return addresses


async def _open(stack: AsyncExitStack, address: Address, security: ClientSecurity) -> Shard:
    channel = await stack.enter_async_context(open_channel(address, security))
    stub = stub_on(channel)
    calls = StreamedCalls(stub)
    stack.push_async_callback(calls.close)
    return Shard(str(address), stub, calls)


@dataclass(frozen=True, slots=True)
class Shard:
    """One receiver behind a router."""

    name: str
    stub: WorkqueueServiceAsyncStub
    calls: StreamedCalls


class Router(WorkqueueServiceServicer):
    """The servicer; `route` runs it with channels and a server of its own.

    Retrying is left to the caller, who knows how long it may take.
    """

    def __init__(self, shards: Sequence[Shard], choose: Choose) -> None:
        self._shards = shards
        self._choose = choose
        self._streams = ServedStreams(self._pass_on)

    async def Process(self, request: pb.ProcessRequest, context: _Context) -> pb.ProcessResponse:  # noqa: N802
        """Enqueue the request's key at its shard."""
        take_over_trace(request, context)
        return await answered(await self._pass_on(request, context.time_remaining), context)

    def ProcessMany(  # noqa: N802
        self, requests: AsyncIterator[pb.ProcessManyRequest], context: _Context
    ) -> AsyncIterator[pb.ProcessManyResponse]:
        """Enqueue the key of each request at its shard."""
        return self._streams.serve(requests, context)

    async def QueueMany(self, batch: pb.QueueManyRequest, context: _Context) -> pb.QueueManyResponse:  # noqa: N802
        """Enqueue the keys of all requests, each shard's in one call. What fails at one shard, fails no other's."""
        return await answered(await self._pass_all_on(batch, context.time_remaining), context)

    async def GetKeyState(self, request: pb.GetKeyStateRequest, context: _Context) -> pb.KeyState:  # noqa: N802
        """Where the request's key is, at its shard."""
        shard, seconds = self._shards[self._choose(request.key)], _seconds(context.time_remaining)
        return await answered(await _asked(shard, shard.stub.GetKeyState(request, timeout=seconds)), context)

    async def _pass_on(self, request: pb.ProcessRequest, time_left: TimeLeft) -> Answer:
        shard = self._shards[self._choose(request.key)]
        return await _asked(shard, shard.calls.process(request, _seconds(time_left)))

    async def _pass_all_on(self, batch: pb.QueueManyRequest, time_left: TimeLeft) -> pb.QueueManyResponse | Refusal:
        if (refusal := too_large(batch)) is not None:
            return refusal
        parts: defaultdict[int, list[pb.ProcessRequest]] = defaultdict(list)
        for request in batch.requests:
            parts[self._choose(request.key)].append(request)
        answers = await asyncio.gather(
            *(_queued(self._shards[index], part, _seconds(time_left)) for index, part in parts.items())
        )
        return next((answer for answer in answers if isinstance(answer, Refusal)), pb.QueueManyResponse())


async def _queued(
    shard: Shard, requests: Sequence[pb.ProcessRequest], seconds: float
) -> pb.QueueManyResponse | Refusal:
    return await _asked(shard, shard.stub.QueueMany(pb.QueueManyRequest(requests=requests), timeout=seconds))


def _seconds(time_left: TimeLeft) -> float:
    left = time_left()
    return _TIMEOUT_SECONDS if left is None else min(left * _IN_TIME, _TIMEOUT_SECONDS)


async def _asked(shard: Shard, answer: Awaitable[_T | None]) -> _T | Refusal:
    """The shard's answer, or what its producer is sent instead."""
    try:
        given = await answer
    except grpc.aio.AioRpcError as error:
        return of_shard(shard.name, error)
    if given is None:  # what gRPC makes of an answer that cannot be read
        return Refusal(grpc.StatusCode.FAILED_PRECONDITION, f"shard {shard.name}: its answer cannot be read")
    return given

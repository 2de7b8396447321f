"""Stage 1: `QueueMany` for callers that have many keys in hand: one call for hundreds, if the other side has it.

A call costs gRPC some 130 us of CPU at either end, whatever it is about, and each key in it less than a tenth. A batch
is a call like any other: it has a deadline and a token, and a balancer spreads batches as it spreads calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from workqueue.options import Options
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.statuses import Refusal

if TYPE_CHECKING:
    from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceAsyncStub

__all__ = ["Batches", "next_batch", "too_large"]

_MOST_KEYS = 1000  # that a receiver takes: they hold up everybody else there for some milliseconds
_KEYS = 250  # then the call costs less than one of its keys
_PAYLOAD_BYTES = 256 * 1024  # and the last one: with the longest keys and meta that is less than any receiver takes
_ASK_AGAIN_SECONDS = 300.0  # a rolling update may bring a peer that has batches
_NO_SUCH_METHOD = frozenset({grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED})  # the latter: a proxy


def next_batch(items: Iterator[tuple[str, Options]]) -> list[tuple[str, Options]]:
    """The next items that go together; empty if there are none."""
    batch: list[tuple[str, Options]] = []
    room = _PAYLOAD_BYTES
    for item in items:
        batch.append(item)
        room -= len(item[1].payload or b"")
        if len(batch) == _KEYS or room < 0:
            break
    return batch


def too_large(batch: pb.QueueManyRequest) -> Refusal | None:
    """What a receiver answers to a batch that would hold up everybody else there; None to any other."""
    count = len(batch.requests)
    if count <= _MOST_KEYS:
        return None
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, f"a batch has at most {_MOST_KEYS} keys, this one has {count}")


class Batches:
    """Calls of `QueueMany`, as long as the peer has it; for one event loop.

    Args:
        stub: of the peer.
    """

    def __init__(self, stub: WorkqueueServiceAsyncStub) -> None:
        self._stub = stub
        self._ask_at = 0.0

    @property
    def are_taken(self) -> bool:
        """False if the peer has said lately that it has no such method."""
        return asyncio.get_running_loop().time() >= self._ask_at

    async def queue(self, batch: pb.QueueManyRequest, seconds: float) -> pb.QueueManyResponse | None:
        """The answer to `batch`: all of it is stored; None where it cannot be read.

        Raises:
            grpc.aio.AioRpcError: there is none within `seconds`, or it is an error.
        """
        try:
            answer: pb.QueueManyResponse | None = await self._stub.QueueMany(batch, timeout=seconds)
        except grpc.aio.AioRpcError as error:
            if error.code() in _NO_SUCH_METHOD:
                self._ask_at = asyncio.get_running_loop().time() + _ASK_AGAIN_SECONDS
            raise
        return answer

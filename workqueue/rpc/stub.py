"""Stages 1, 5: the calls of our service, whose answer is None where it cannot be read.

gRPC makes the same of it, and writes a traceback of its own to the log for every such call.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError

from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceStub

if TYPE_CHECKING:
    from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceAsyncStub

__all__ = ["reading", "stub_on"]


def stub_on(channel: grpc.aio.Channel) -> WorkqueueServiceAsyncStub:
    """The methods of the service at the other end of `channel`."""
    stub: WorkqueueServiceAsyncStub = WorkqueueServiceStub(reading(channel))
    return stub


def reading(channel: grpc.aio.Channel) -> Any:
    """What a generated stub of any service can be made on, in the place of `channel`."""
    return _Reading(channel)


class _Reading:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel: Any = channel

    def unary_unary(self, method: str, *, response_deserializer: Callable[[bytes], Any], **options: Any) -> Any:
        read = partial(_read, response_deserializer)
        return self._channel.unary_unary(method, response_deserializer=read, **options)

    def stream_stream(self, method: str, *, response_deserializer: Callable[[bytes], Any], **options: Any) -> Any:
        read = partial(_read, response_deserializer)
        return self._channel.stream_stream(method, response_deserializer=read, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)


def _read(deserialize: Callable[[bytes], Any], answer: bytes) -> Any:
    try:
        return deserialize(answer)
    except DecodeError:
        return None

"""Stages 1, 5: one stream of `ProcessMany` as its caller sees it: many calls in few messages, each with its own end.

A unary call costs gRPC some 130 us of CPU at either end, whatever it is about. A message of a stream costs about as
much, but it carries all that came up while the one before it was written.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.statuses import error_in, failed

__all__ = ["LARGEST_CALL_BYTES", "CallStream"]

LARGEST_CALL_BYTES = 512 * 1024
"""A call that is larger goes by itself: a message holds at most twice as much, where a server takes four times."""


class CallStream:
    """A stream of calls; `open` it first.

    Args:
        process_many: the method; it is given an iterator of messages.
    """

    def __init__(self, process_many: Callable[[AsyncIterator[pb.ProcessManyRequest]], Any]) -> None:
        self.window = 0
        """How many calls the other side takes at once."""

        self.is_closing = False
        """Whether no further call may be made in it."""

        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[pb.ProcessResponse]] = {}
        self._batches: deque[_Batch] = deque()
        self._wake = asyncio.Event()
        self._call = process_many(self._requests())
        self._reading: asyncio.Task[None] | None = None

    async def open(self) -> bool:
        """Wait until the other side has said how many calls it takes; False where it said anything else.

        Raises:
            grpc.aio.AioRpcError: there is no such method, or nobody who answers.
        """
        first = await self._call.read()
        if not isinstance(first, pb.ProcessManyResponse) or first.window < 1:
            return False
        self.window = first.window
        self._reading = asyncio.create_task(self._read())
        return True

    @property
    def under_way(self) -> int:
        """How many calls in it are without an answer."""
        return len(self._answers)

    async def process(self, request: pb.ProcessRequest, seconds: float) -> pb.ProcessResponse:
        """The answer to one call, for which there must be room.

        Raises:
            grpc.aio.AioRpcError: what a call of its own would have raised. UNAVAILABLE if the stream broke.
        """
        number = next(self._ids)
        answer: asyncio.Future[pb.ProcessResponse] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        self._batch().add(number, request, seconds)
        timer = answer.get_loop().call_later(seconds, _expire, answer)
        try:
            return await answer
        finally:
            timer.cancel()
            if self._answers.pop(number, None) is not None:  # nobody has answered: nobody waits any more
                self._batch().message.cancelled.append(number)

    def close(self) -> None:
        """Make no further call in it. It ends once all are answered."""
        self.is_closing = True
        self._wake.set()

    async def abort(self) -> None:
        """End it at once; calls that are under way fail."""
        self.close()
        self._call.cancel()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    def _batch(self) -> _Batch:
        """What is sent next, or after what is already full."""
        if not self._batches or self._batches[-1].bytes > LARGEST_CALL_BYTES:
            self._batches.append(_Batch())
            self._wake.set()
        return self._batches[-1]

    async def _requests(self) -> AsyncIterator[pb.ProcessManyRequest]:
        while self._batches or self._answers or not self.is_closing:
            await self._wake.wait()
            self._wake.clear()
            while self._batches:
                yield self._batches.popleft().message

    async def _read(self) -> None:
        try:
            while isinstance(message := await self._call.read(), pb.ProcessManyResponse):
                for answer in message.answers:
                    waiting = self._answers.pop(answer.id, None)
                    if waiting is not None and not waiting.done():
                        _settle(waiting, answer)
                if message.closing or (self.is_closing and not self._answers):
                    self.close()
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass  # why it broke is asked below
        finally:
            await self._end()

    async def _end(self) -> None:
        self.close()
        self._call.cancel()
        code, details = await self._call.code(), await self._call.details()
        why = f"the stream of calls ended: {code.name}{': ' if details else ''}{details or ''}"
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(failed(grpc.StatusCode.UNAVAILABLE, why))
        self._answers.clear()


class _Batch:
    """What goes into one message, and how large it is by now."""

    __slots__ = ("bytes", "message")

    def __init__(self) -> None:
        self.message = pb.ProcessManyRequest()
        self.bytes = 0

    def add(self, number: int, request: pb.ProcessRequest, seconds: float) -> None:
        call = self.message.calls.add(id=number, timeout_ms=max(int(seconds * 1000), 1))
        call.request.CopyFrom(request)
        self.bytes += call.request.ByteSize()


def _settle(waiting: asyncio.Future[pb.ProcessResponse], answer: pb.ProcessManyResponse.Answer) -> None:
    if answer.HasField("response"):
        waiting.set_result(answer.response)
        return
    try:
        waiting.set_exception(error_in(Status.FromString(answer.status)))
    except DecodeError:
        waiting.set_exception(failed(grpc.StatusCode.INTERNAL, "its status cannot be read"))


def _expire(answer: asyncio.Future[pb.ProcessResponse]) -> None:
    if not answer.done():
        answer.set_exception(failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

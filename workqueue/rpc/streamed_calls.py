"""Stages 1, 5: `Process` for callers that make many calls at once: they share streams, if the other side has them.

A stream is asked for while calls are many and short, and calls go by themselves until it is there: so nobody waits for
it, a peer that has none (Go's) is called as ever, and one that is down fails each call in the same words.

All calls of one stream go to one replica. Therefore it is given few calls and a short turn: many streams, begun again
and again, are spread over the replicas as calls are. Calls that take long are spread one by one, since a stream would
save them nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from workqueue.rpc.call_stream import LARGEST_CALL_BYTES, CallStream
from workqueue.rpc.pb import workqueue_pb2 as pb

if TYPE_CHECKING:
    from workqueue.rpc.pb.workqueue_pb2_grpc import WorkqueueServiceAsyncStub

__all__ = ["StreamedCalls"]

_CROWD = 8  # calls at once, and
_BUSY_PER_SECOND = 1000  # calls ended, below which their cost is a tenth of a CPU or less
_SAMPLE = 16  # calls, after which one looks how busy it is
_SHARE = 32  # calls at once in one stream: then a call costs a tenth of one by itself
_TURN_SECONDS = 10.0
_HELLO_SECONDS = 2.0  # somebody between us holds the stream back, or the other side is busy: calls by themselves go on
_ASK_AGAIN_SECONDS = 300.0  # a rolling update may bring a peer that has streams
_TRY_AGAIN_SECONDS = 1.0


class StreamedCalls:
    """Calls of `Process`, in streams of `ProcessMany` where that is cheaper; for one event loop.

    Args:
        stub: of the peer.
    """

    def __init__(self, stub: WorkqueueServiceAsyncStub) -> None:
        self._stub = stub
        self._under_way = 0
        self._calls = 0
        self._sampled_at = 0.0
        self._is_busy = False
        self._streams: list[CallStream] = []
        self._opening: asyncio.Task[None] | None = None
        self._ask_at = 0.0

    async def process(self, request: pb.ProcessRequest, seconds: float) -> pb.ProcessResponse | None:
        """The answer to `request`; None where it cannot be read.

        Raises:
            grpc.aio.AioRpcError: there is none within `seconds`, or it is an error.
        """
        self._under_way += 1
        try:
            stream = self._stream()
            if stream is not None and request.ByteSize() <= LARGEST_CALL_BYTES:
                return await stream.process(request, seconds)
            answer: pb.ProcessResponse | None = await self._stub.Process(request, timeout=seconds)
            return answer
        finally:
            self._under_way -= 1

    async def close(self) -> None:
        """End all streams at once; calls that are under way in them fail."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        await asyncio.gather(*(stream.abort() for stream in self._streams))

    def _stream(self) -> CallStream | None:
        """The first stream that has room: answers came in it together, so will the next calls. None: call by itself."""
        for stream in self._streams:
            if not stream.is_closing and stream.under_way < min(stream.window, _SHARE):
                return stream
        now = asyncio.get_running_loop().time()
        if self._is_worth_it(now) and self._opening is None and now >= self._ask_at:
            self._opening = asyncio.create_task(self._open(now))
        return None

    def _is_worth_it(self, now: float) -> bool:
        self._calls += 1
        if self._calls == _SAMPLE:
            self._is_busy = now - self._sampled_at < _SAMPLE / _BUSY_PER_SECOND
            self._calls, self._sampled_at = 0, now
        return self._is_busy and self._under_way >= _CROWD

    async def _open(self, now: float) -> None:
        stream, pause, is_open = CallStream(self._stub.ProcessMany), _TRY_AGAIN_SECONDS, False
        try:
            async with asyncio.timeout(_HELLO_SECONDS):
                is_open = await stream.open()
        except TimeoutError:
            pause = _ASK_AGAIN_SECONDS
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                pause = _ASK_AGAIN_SECONDS
        finally:
            self._opening = None
            if not is_open:
                self._ask_at = now + pause
                await stream.abort()
        if is_open:
            asyncio.get_running_loop().call_later(_TURN_SECONDS, stream.close)
            self._streams = [*(each for each in self._streams if each.under_way or not each.is_closing), stream]

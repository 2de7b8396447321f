"""Stages 1, 5: streams of `ProcessMany` as a server sees them; `call_stream` is their callers' side.

Each call is a task. Answers that are ready at the same time share a message.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeVar

import grpc

from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.statuses import Refusal, status_of

__all__ = ["Answer", "Handle", "ServedStreams", "TimeLeft", "answered"]

log = logging.getLogger(__name__)

Answer = pb.ProcessResponse | Refusal

_T = TypeVar("_T")

TimeLeft = Callable[[], float | None]
"""How many seconds the caller still waits; None for ever."""

Handle = Callable[[pb.ProcessRequest, TimeLeft], Awaitable[Answer]]

_WINDOW = 100
_MESSAGE_BYTES = 1024 * 1024
_IDLE_SECONDS = 20.0  # without a call: as long as a request may take to come in

_BUG = Refusal(grpc.StatusCode.INTERNAL, "the server failed unexpectedly; its log says how")


async def answered(answer: _T | Refusal, context: grpc.aio.ServicerContext[Any, Any]) -> _T:
    """What a call by itself is answered with; a refusal ends it."""
    if isinstance(answer, Refusal):
        await context.abort(answer.code, answer.text, answer.trailers)
    return answer


class ServedStreams:
    """The streams that are open.

    Args:
        handle: makes the answer to a request, in a task of its own, which is cancelled when nobody waits for it.
    """

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._streams: set[_ServedStream] = set()
        self._is_closing = False

    async def serve(
        self, requests: AsyncIterator[pb.ProcessManyRequest], context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[pb.ProcessManyResponse]:
        """What to send in one stream, until its caller has sent the last call and all are answered."""
        if self._is_closing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "no further streams: this server stops")
        stream = _ServedStream(self._handle, requests)
        self._streams.add(stream)
        try:
            async for message in stream.messages():
                yield message
        except _WindowError as error:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        finally:
            stream.end()
            self._streams.discard(stream)

    def close(self) -> None:
        """Take no further stream, and ask for no further calls; those that come all the same are answered."""
        self._is_closing = True
        for stream in self._streams:
            stream.close()


class _WindowError(Exception):
    pass


class _ServedStream:
    def __init__(self, handle: Handle, requests: AsyncIterator[pb.ProcessManyRequest]) -> None:
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._answers: deque[pb.ProcessManyResponse.Answer] = deque()
        self._wake = asyncio.Event()
        self._is_closing = False
        self._reading = asyncio.create_task(self._read(requests))
        self._reading.add_done_callback(lambda _: self._wake.set())

    def close(self) -> None:
        self._is_closing = True
        self._wake.set()

    def end(self) -> None:
        """Stop what is still under way."""
        self._reading.cancel()
        for task in self._calls.values():
            task.cancel()

    async def messages(self) -> AsyncIterator[pb.ProcessManyResponse]:
        yield pb.ProcessManyResponse(window=_WINDOW)
        has_said_so = False
        while await self._has_more():
            for message in self._answered():
                yield message
            if self._is_closing and not has_said_so:
                has_said_so = True
                yield pb.ProcessManyResponse(closing=True)

    async def _has_more(self) -> bool:
        """Wait for something to send; False once there will be nothing, or the caller has been idle for too long.

        Raises:
            _WindowError: the caller has broken the rules.
        """
        if self._reading.done():
            self._reading.result()
            if not self._calls and not self._answers:
                return False
        was_closing = self._is_closing
        try:
            async with asyncio.timeout(None if self._calls else _IDLE_SECONDS):
                await self._wake.wait()
        except TimeoutError:
            self._is_closing = True
            return not was_closing
        self._wake.clear()
        return True

    def _answered(self) -> Iterator[pb.ProcessManyResponse]:
        while self._answers:
            message, size = pb.ProcessManyResponse(), 0
            while self._answers and size < _MESSAGE_BYTES:
                size += self._answers[0].ByteSize()
                message.answers.append(self._answers.popleft())
            yield message

    async def _read(self, requests: AsyncIterator[pb.ProcessManyRequest]) -> None:
        async for message in requests:
            for number in message.cancelled:
                if number in self._calls:
                    self._calls[number].cancel()
            for call in message.calls:
                self._begin(call)

    def _begin(self, call: pb.ProcessManyRequest.Call) -> None:
        if len(self._calls) >= _WINDOW or call.id in self._calls:
            raise _WindowError(f"more than {_WINDOW} calls are under way in this stream, or two have the same id")
        task = self._calls[call.id] = self._loop.create_task(self._answer(call))
        task.add_done_callback(lambda _: self._ended(call.id))

    async def _answer(self, call: pb.ProcessManyRequest.Call) -> None:
        until = self._loop.time() + call.timeout_ms / 1000 if call.timeout_ms > 0 else None
        try:
            async with asyncio.timeout_at(until):
                answer = await self._handle(call.request, lambda: None if until is None else until - self._loop.time())
        except TimeoutError:
            return  # its caller has given up at the same moment
        except Exception:
            log.exception("a bug: a call in a stream has failed unexpectedly")
            answer = _BUG
        self._answers.append(_message(call.id, answer))

    def _ended(self, number: int) -> None:
        del self._calls[number]
        self._wake.set()


def _message(number: int, answer: Answer) -> pb.ProcessManyResponse.Answer:
    if isinstance(answer, pb.ProcessResponse):
        return pb.ProcessManyResponse.Answer(id=number, response=answer)
    return pb.ProcessManyResponse.Answer(id=number, status=status_of(answer))

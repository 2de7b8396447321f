"""The entrance of a gRPC server: who calls, whether there is room, and a request that comes in time and can be read.

Requests are read here and not by gRPC. That would wait for the rest of one for ever, even for a caller who is refused
then, and would write a traceback into the log for each that it cannot read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, NoReturn, cast

import grpc

from workqueue.access.tokens import (
    TokenCheckUnavailableError,
    TokenRefusedError,
    TokenVerifier,
    bearer_token,
)
from workqueue.rpc.grpc_limits import GrpcLimits

__all__ = ["Entrance"]

log = logging.getLogger(__name__)

# Probes have no tokens, and see nothing that a connection does not show. A Watch stays, so it does need one.
_HEALTH = "/grpc.health.v1.Health/"
_OPEN = frozenset({_HEALTH + "Check", _HEALTH + "List"})

_NO_ROOM = (grpc.StatusCode.UNAVAILABLE, "too many calls are under way")

_Context = grpc.aio.ServicerContext[Any, Any]
_Handler = Any  # grpc.RpcMethodHandler, which is generic in its stubs only


class Entrance(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Answers UNAUTHENTICATED without a valid token, UNAVAILABLE where there is no room or the token cannot be checked.

    Args:
        verifier: who checks tokens; None = nobody is asked for one.
        limits: how many calls, and how long a request may take to come in.
    """

    def __init__(self, verifier: TokenVerifier | None, limits: GrpcLimits) -> None:
        self._verifier = verifier
        self._limits = limits
        self._under_way = 0

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        method = handler_call_details.method
        if self._verifier is not None and method not in _OPEN:
            refused = await _refusal(self._verifier, handler_call_details)
            if refused is not None:
                return _aborting(*refused)
        handler = cast("Any", await continuation(handler_call_details))
        if handler is None:
            return None
        return self._stream(handler, method) if handler.request_streaming else self._read_by_us(handler, method)

    def _stream(self, handler: Any, method: str) -> _Handler:
        """`handler` of a stream of requests, for which one that cannot be read is no bug of ours."""

        async def answers(raw: AsyncIterator[bytes], context: _Context) -> AsyncIterator[Any]:
            async def requests() -> AsyncIterator[Any]:
                async for each in raw:
                    yield await _understood(context, handler.request_deserializer, each)

            self._under_way += 1
            try:
                if self._under_way > self._limits.calls:
                    await context.abort(*_NO_ROOM)
                async for answer in handler.stream_stream(requests(), context):
                    yield answer
            except Exception as error:  # noqa: BLE001 - a refusal, or a bug
                await _fail(method, context, error)
            finally:
                self._under_way -= 1

        return grpc.stream_stream_rpc_method_handler(answers, None, handler.response_serializer)

    def _read_by_us(self, handler: Any, method: str) -> _Handler:
        """`handler` of one request, as a handler of a stream of them that reads the first one itself."""
        counted = not method.startswith(_HEALTH)

        async def request(context: _Context) -> Any:
            if counted and self._under_way > self._limits.calls:
                await context.abort(*_NO_ROOM)
            return await _read(context, handler.request_deserializer, self._limits.message_time)

        async def answer(raw: object, context: _Context) -> Any:
            self._under_way += counted
            try:
                return handler.response_serializer(await handler.unary_unary(await request(context), context))
            except Exception as error:  # noqa: BLE001 - a refusal, or a bug
                await _fail(method, context, error)
            finally:
                self._under_way -= counted

        async def answers(raw: object, context: _Context) -> AsyncIterator[Any]:
            self._under_way += counted
            try:
                async for each in handler.unary_stream(await request(context), context):
                    yield each
            except Exception as error:  # noqa: BLE001 - a refusal, or a bug
                await _fail(method, context, error)
            finally:
                self._under_way -= counted

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(answers, None, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer)


async def _fail(method: str, context: _Context, error: Exception) -> NoReturn:
    """Let a refusal pass; log a bug, and answer for it in words that show nothing.

    A call may have ended by itself: gRPC refuses a request beyond its limit, and takes no answer for a caller who has
    left. Then our answer fails with InternalError, which is no bug, and gRPC would log a traceback of its own.
    """
    if isinstance(error, grpc.aio.AbortError):
        raise error
    ended = False
    try:
        await context.abort(grpc.StatusCode.INTERNAL, "the server failed unexpectedly; its log says how")
    except (grpc.aio.InternalError, grpc.aio.UsageError):
        ended = True
        raise asyncio.CancelledError from error
    finally:
        if not (ended and isinstance(error, grpc.aio.InternalError)):
            log.error("a bug: %s has failed unexpectedly", method, exc_info=error)


async def _read(context: _Context, deserialize: Callable[[bytes], Any], patience: timedelta) -> Any:
    try:
        async with asyncio.timeout(patience.total_seconds()):
            raw: Any = await context.read()
    except TimeoutError:
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the request took too long to come in")
    return await _understood(context, deserialize, raw)


async def _understood(context: _Context, deserialize: Callable[[bytes], Any], raw: Any) -> Any:
    try:
        return deserialize(raw)
    except Exception:  # noqa: BLE001 - no request at all, or whatever protobuf makes of bytes that are none
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request cannot be read")


async def _refusal(verifier: TokenVerifier, call: grpc.HandlerCallDetails) -> tuple[grpc.StatusCode, str] | None:
    shown = [str(value) for name, value in call.invocation_metadata if name == "authorization"]
    try:
        await verifier.verify(bearer_token(shown))
    except TokenRefusedError as error:
        return grpc.StatusCode.UNAUTHENTICATED, str(error)
    except TokenCheckUnavailableError as error:
        return grpc.StatusCode.UNAVAILABLE, str(error)
    return None


def _aborting(code: grpc.StatusCode, text: str) -> _Handler:
    async def abort(raw: object, context: _Context) -> None:
        await context.abort(code, text)

    return grpc.stream_unary_rpc_method_handler(abort)  # of a stream: the request is not waited for

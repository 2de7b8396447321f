"""The bearer token that a gRPC client adds to its calls; `entrance` is where servers check one."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Iterable
from typing import Any

import grpc

from workqueue.access.tokens import TokenSource

__all__ = ["adding_token"]

_Details = grpc.aio.ClientCallDetails


def adding_token(source: TokenSource) -> list[Any]:
    """The interceptors of a channel that send the source's token with every call, and with every stream of calls."""
    return [_OneCall(source), _Stream(source)]  # grpc takes one object for one kind only


class _OneCall(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_unary_unary(
        self, continuation: Callable[[_Details, Any], Any], client_call_details: _Details, request: object
    ) -> Any:
        return await continuation(await _with_token(client_call_details, self._source), request)


class _Stream(grpc.aio.StreamStreamClientInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_stream_stream(
        self,
        continuation: Callable[[_Details, Any], Any],
        client_call_details: _Details,
        request_iterator: AsyncIterable[Any] | Iterable[Any],
    ) -> Any:
        return await continuation(await _with_token(client_call_details, self._source), request_iterator)


async def _with_token(details: _Details, source: TokenSource) -> _Details:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("authorization", f"Bearer {await source.token()}")
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )

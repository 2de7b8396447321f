"""The bearer token that a gRPC client adds to its calls; `entrance` is where servers check one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from workqueue.access.tokens import TokenSource

__all__ = ["AddToken"]


class AddToken(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Sends the source's token with every call."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], grpc.aio.UnaryUnaryCall[Any, Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: object,
    ) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        metadata.add("authorization", f"Bearer {await self._source.token()}")
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            client_call_details.timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)

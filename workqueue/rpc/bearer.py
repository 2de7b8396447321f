"""Bearer tokens of gRPC calls: a server checks them before it reads the request, a client adds its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from workqueue.access.tokens import (
    TokenCheckUnavailableError,
    TokenRefusedError,
    TokenSource,
    TokenVerifier,
    bearer_token,
)

__all__ = ["AddToken", "RequireToken"]

_HEALTH = "/grpc.health.v1.Health/"  # probes have no tokens, and see nothing that a connection does not show


class RequireToken(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
    """Answers UNAUTHENTICATED, or UNAVAILABLE where tokens cannot be checked, unless a valid token comes with the call.

    Health checks need none.
    """

    def __init__(self, verifier: TokenVerifier) -> None:
        self._verifier = verifier

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        if handler_call_details.method.startswith(_HEALTH):
            return await continuation(handler_call_details)
        headers = {name: str(value) for name, value in handler_call_details.invocation_metadata}
        try:
            await self._verifier.verify(bearer_token(headers.get("authorization")))
        except TokenRefusedError as error:
            return _answer(grpc.StatusCode.UNAUTHENTICATED, str(error))
        except TokenCheckUnavailableError as error:
            return _answer(grpc.StatusCode.UNAVAILABLE, str(error))
        return await continuation(handler_call_details)


def _answer(code: grpc.StatusCode, text: str) -> grpc.RpcMethodHandler[Any, Any]:
    async def abort(request: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.abort(code, text)

    return grpc.unary_unary_rpc_method_handler(abort)


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

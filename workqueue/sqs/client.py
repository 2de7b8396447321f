"""Stage 1: the SQS service: a client for one queue, and its errors in our own terms."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from workqueue.errors import StoreError, StoreUnavailableError, StoreUnusableError
from workqueue.extras import importing
from workqueue.sqs.address import Address

with importing("sqs", "SQS"):
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session
    from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, HTTPClientError, SSLError

if TYPE_CHECKING:
    from types_aiobotocore_sqs.client import SQSClient

__all__ = ["ERRORS", "explain", "open_client", "too_long"]

ERRORS = (BotoCoreError, ClientError, OSError)
"""What a call of the client raises."""

_UNREACHABLE = (HTTPClientError, EndpointConnectionError, OSError)
_PASSING = frozenset(
    {
        "RequestThrottled",
        "ThrottlingException",
        "Throttling",
        "OverLimit",
        "KmsThrottled",
        "RequestTimeout",
        "ServiceUnavailable",
        "InternalError",
        "InternalFailure",
        "ExpiredToken",
        "ExpiredTokenException",
    }
)


@asynccontextmanager
async def open_client(address: Address, connections: int) -> AsyncIterator[SQSClient]:
    """A client of the server that `address` names; it finds its credentials as all AWS clients do.

    Raises:
        StoreUnusableError: it cannot be made, for instance because no region is known.
    """
    config = AioConfig(
        connect_timeout=5,
        read_timeout=30,  # a long poll takes 20
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": 2},
    )
    making = get_session().create_client(
        "sqs", region_name=address.region, endpoint_url=address.endpoint, config=config
    )
    try:
        client = await making.__aenter__()
    except (BotoCoreError, ValueError) as error:
        raise StoreUnusableError(f"SQS queue {address.name}: {error}") from error
    try:
        yield client
    finally:
        await making.__aexit__(None, None, None)


def explain(error: Exception, address: Address) -> StoreError:
    """What is the matter, and whether it may pass."""
    if isinstance(error, ClientError):
        details = error.response
        code = str(details.get("Error", {}).get("Code", "")).rpartition(".")[2].rpartition("#")[2]
        status = details.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = f"SQS queue {address.name}: {code}: {details.get('Error', {}).get('Message', '')}"
        passing = status >= 500 or status == 429 or code in _PASSING
    else:
        text = f"SQS queue {address.name}: {error}"
        passing = isinstance(error, _UNREACHABLE) and not isinstance(error, SSLError)
    return StoreUnavailableError(text) if passing else StoreUnusableError(text)


def too_long(error: Exception) -> bool:
    """Whether a batch was refused for its size, which a queue may limit below what SQS allows."""
    return isinstance(error, ClientError) and "BatchRequestTooLong" in str(error.response.get("Error", {}).get("Code"))

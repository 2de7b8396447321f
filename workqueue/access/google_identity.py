"""Identity tokens of the service account that this process runs as on Google Cloud."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from datetime import timedelta

from workqueue.extras import importing

with importing("oidc", "a Google ID token"):
    import aiohttp

from workqueue.clock import Clock, SystemClock, duration_us
from workqueue.errors import InvalidSettingError, StoreUnavailableError
from workqueue.safe_text import describe

__all__ = ["METADATA_HOST", "GoogleIDToken"]

log = logging.getLogger(__name__)

METADATA_HOST = "metadata.google.internal"

_PATH = "/computeMetadata/v1/instance/service-accounts/default/identity"
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_RENEW_BEFORE_US = duration_us(timedelta(minutes=5))
_RETRY_US = duration_us(timedelta(seconds=30))


class GoogleIDToken:
    """Tokens for one audience from the metadata server of Cloud Run, GKE and Compute Engine, renewed as they expire.

    Args:
        audience: the called service's URL, as Cloud Run expects.
        metadata_host: `host` or `host:port`; Google's libraries read it from GCE_METADATA_HOST.
        clock: wall time says when a token is about to expire.

    Raises:
        InvalidSettingError: the audience is empty.
    """

    def __init__(self, audience: str, *, metadata_host: str = METADATA_HOST, clock: Clock | None = None) -> None:
        if not audience:
            raise InvalidSettingError("a Google ID token needs an audience: the URL of the service that is called")
        self._audience = audience
        self._url = f"http://{metadata_host}{_PATH}"
        self._clock: Clock = clock or SystemClock()
        self._token = ""
        self._expires_us = self._renew_us = 0
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        if self._due():
            async with self._lock:  # one request for all who wait
                if self._due():
                    await self._renew()
        return self._token

    def _due(self) -> bool:
        return self._clock.wall_us() >= self._renew_us

    async def _renew(self) -> None:
        try:
            token = await self._fetch()
            expires_us = _expiry_us(token)
        except StoreUnavailableError as error:
            now_us = self._clock.wall_us()
            if now_us >= self._expires_us:
                raise
            self._renew_us = now_us + _RETRY_US
            log.warning("still using a Google ID token that is about to expire: %s", error)
        else:
            self._token, self._expires_us = token, expires_us
            self._renew_us = expires_us - _RENEW_BEFORE_US

    async def _fetch(self) -> str:
        query = {"audience": self._audience, "format": "full"}
        headers = {"Metadata-Flavor": "Google"}
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as session,
                session.get(self._url, params=query, headers=headers, raise_for_status=True) as response,
            ):
                return (await response.text()).strip()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StoreUnavailableError(f"no Google ID token from {self._url}: {describe(error)}") from error


def _expiry_us(token: str) -> int:
    """When the token expires. Its signature is the called service's business."""
    try:
        claims = token.split(".")[1]
        padded = claims + "=" * (-len(claims) % 4)
        return int(json.loads(base64.urlsafe_b64decode(padded))["exp"]) * 1_000_000
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreUnavailableError("the metadata server answered with something that is no ID token") from error

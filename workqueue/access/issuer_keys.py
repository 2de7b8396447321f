"""The public keys of an OpenID issuer: fetched when they are needed, and no more than a document of keys may be."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import jwt

from workqueue.access.addresses import is_host, is_loopback
from workqueue.access.tokens import TokenCheckUnavailableError, TokenRefusedError
from workqueue.clock import Clock, duration_us
from workqueue.errors import InvalidSettingError
from workqueue.safe_text import cut, describe, shown_url

__all__ = ["IssuerKeys", "SigningKey", "check_issuer_url", "discovery_document"]

log = logging.getLogger(__name__)

_KEYS_LAST_US = duration_us(timedelta(hours=1))
_REFETCH_US = duration_us(timedelta(seconds=10))
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_LARGEST_BYTES = 1024 * 1024
_TRUSTED = {("https", False), ("https", True), ("http", True)}

# Signatures that only an issuer can make. With the HS family, whoever knows the public key could sign as the issuer.
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_BY_CURVE = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",), "Ed448": ("EdDSA",)}


class SigningKey(NamedTuple):
    """A public key, and the algorithms that it may have been used with."""

    key: Any
    algorithms: tuple[str, ...]


def check_issuer_url(url: str) -> str:
    """`url`, if it is https, or on this machine.

    Raises:
        InvalidSettingError: it is not.
    """
    with suppress(ValueError):  # a bracket without its partner, for instance
        parts = urlsplit(url)
        host = parts.hostname or ""
        if is_host(host) and (parts.scheme, is_loopback(host)) in _TRUSTED:
            return url
    shown = shown_url(url)
    raise InvalidSettingError(f"{shown!r} is no https URL: whoever answers there decides whom this server trusts")


class IssuerKeys:
    """The keys of one issuer: fetched when first needed, again when an hour old or when a token names a new one.

    Args:
        issuer: an https URL.
        jwks_url: where the keys are; empty = where the issuer's discovery document says.
        clock: says how old they are.
    """

    def __init__(self, issuer: str, jwks_url: str, clock: Clock) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._clock = clock
        self._known: dict[str | None, SigningKey] = {}
        self._fetched_us = self._next_us = 0
        self._lock = asyncio.Lock()

    async def of(self, kid: str | None) -> SigningKey:
        """The key of this id; without one the only key that there is.

        Raises:
            TokenRefusedError: the issuer does not publish it.
            TokenCheckUnavailableError: the keys cannot be fetched, or not so soon again.
        """
        if not self._has(kid) or self._is_due():
            async with self._lock:  # one fetch for all who wait
                await self._find(kid)
        return self._known[kid] if kid in self._known else next(iter(self._known.values()))

    def _has(self, kid: str | None) -> bool:
        return kid in self._known or (kid is None and len(self._known) == 1)

    def _is_due(self) -> bool:
        now_us = self._clock.steady_us()
        return now_us - self._fetched_us >= _KEYS_LAST_US and now_us >= self._next_us

    async def _find(self, kid: str | None) -> None:
        is_fresh = False
        if self._clock.steady_us() >= self._next_us and (not self._has(kid) or self._is_due()):
            is_fresh = await self._refresh()
        if not self._known:
            raise TokenCheckUnavailableError("the keys of the issuer cannot be fetched at the moment; the log says why")
        if self._has(kid):
            return
        if not is_fresh:  # it may have been published since; made-up ids must not make us hammer the issuer
            raise TokenCheckUnavailableError("the keys of the issuer are fetched again in ten seconds at most")
        raise TokenRefusedError("the token is signed with a key that the issuer does not publish")

    async def _refresh(self) -> bool:
        now_us = self._clock.steady_us()
        self._next_us = now_us + _REFETCH_US
        try:
            self._known = await self._fetch()
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            still = "still using those fetched earlier" if self._known else "tokens cannot be checked"
            log.warning(
                "the keys of %s cannot be fetched, %s: %s", shown_url(self._issuer), still, cut(describe(error), 500)
            )
            return False
        self._fetched_us = now_us
        return True

    async def _fetch(self) -> dict[str | None, SigningKey]:
        plain = {"accept-encoding": "identity"}
        async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=plain, auto_decompress=False) as session:
            jwks_url = self._jwks_url or await self._discover(session)
            published = (await _document(session, jwks_url)).get("keys")
        usable = [(each.get("kid"), key) for each in _objects(published) if (key := _usable(each)) is not None]
        keys = {None if kid is None else str(kid): key for kid, key in reversed(usable)}  # of two the first
        if not keys:
            raise ValueError(f"{shown_url(jwks_url)} holds no key that signatures can be checked with")
        return keys

    async def _discover(self, session: aiohttp.ClientSession) -> str:
        return check_issuer_url(str((await discovery_document(session, self._issuer)).get("jwks_uri")))


async def discovery_document(session: aiohttp.ClientSession, issuer: str) -> dict[str, Any]:
    """What an issuer says of itself (OpenID Connect Discovery 1.0, section 4).

    Raises:
        ClientError, TimeoutError, ValueError: there is no such document, or it is another issuer's.
    """
    found = await _document(session, issuer.rstrip("/") + "/.well-known/openid-configuration")
    named = found.get("issuer")
    if named != issuer:  # section 4.3
        raise ValueError(f"its discovery document is that of another issuer, {shown_url(str(named))!r}")
    return found


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """The JSON object at `url`; redirects are not followed: they might lead to plain http, or to anybody."""
    shown = shown_url(url)
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(f"{shown} answered {response.status}")
        if response.headers.get("content-encoding", "identity") != "identity":
            raise ValueError(f"{shown} is compressed, which was not asked for")
        body = b""
        async for part in response.content.iter_chunked(_LARGEST_BYTES):
            body += part
            if len(body) > _LARGEST_BYTES:
                raise ValueError(f"{shown} is larger than {_LARGEST_BYTES} bytes")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError(f"{shown} is no JSON object")
    return found


def _objects(found: object) -> list[Mapping[str, Any]]:
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _usable(published: Mapping[str, Any]) -> SigningKey | None:
    """A key as it is published, None for one of another use; without `alg` it is for all that its kind can do."""
    allowed = _RSA if published.get("kty") == "RSA" else _BY_CURVE.get(str(published.get("crv")), ())
    algorithms = tuple(each for each in allowed if published.get("alg") in (None, each))
    if not algorithms or published.get("use") not in (None, "sig"):
        return None
    try:
        return SigningKey(jwt.PyJWK({**published, "alg": algorithms[0]}).key, algorithms)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None

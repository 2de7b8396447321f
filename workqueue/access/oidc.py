"""Stages 1, 3, 5: who may call, by OpenID Connect tokens: signed by an issuer, for an audience, not expired."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from workqueue.access.addresses import is_loopback
from workqueue.access.tokens import TokenCheckUnavailableError, TokenRefusedError
from workqueue.clock import Clock, SystemClock, duration_us
from workqueue.errors import InvalidSettingError, MissingExtraError

try:
    import jwt
except ImportError as error:
    raise MissingExtraError(
        f"OIDC tokens need a library that is not installed ({error.name}): pip install 'workqueue-dispatcher[oidc]'"
    ) from error

__all__ = ["OIDCTokens"]

log = logging.getLogger(__name__)

# Signatures only an issuer can make. With the HS family, whoever knows the public key could sign as the issuer.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_REQUIRED = ("exp", "iss", "aud", "sub")
_LEEWAY = timedelta(seconds=30)
_KEYS_LAST_US = duration_us(timedelta(hours=1))
_REFETCH_US = duration_us(timedelta(seconds=10))
_TIMEOUT = aiohttp.ClientTimeout(total=5)
_TRUSTED = {("https", False), ("https", True), ("http", True)}


class OIDCTokens:
    """Accepts tokens of one issuer for one audience.

    Args:
        issuer: the `iss` claim, an https URL; its keys are found through its discovery document.
        audience: the `aud` claim, usually this server's own URL.
        subjects: accepted `sub` claims and verified e-mail addresses; empty accepts every subject. Set it where
            anybody can get a token for any audience, as from Google.
        jwks_url: where the keys are, for an issuer without discovery.
        clock: says how old the fetched keys are; expiry is judged by the machine's own clock.

    Raises:
        InvalidSettingError: a URL is not https (or loopback), or the audience is empty.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        *,
        subjects: Collection[str] = (),
        jwks_url: str = "",
        clock: Clock | None = None,
    ) -> None:
        if not audience:
            raise InvalidSettingError("an OIDC audience is needed: tokens meant for others must not open this server")
        self._issuer = _check_url(issuer)
        self._audience = audience
        self._subjects = frozenset(subjects)
        self._keys = _Keys(issuer, _check_url(jwks_url) if jwks_url else "", clock or SystemClock())

    async def verify(self, token: str) -> None:
        try:
            key = await self._keys.of(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY,
                options={"require": list(_REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise TokenRefusedError(_explain(error, self._audience, self._issuer)) from error
        self._check_subject(claims)

    def _check_subject(self, claims: Mapping[str, Any]) -> None:
        shown = {claims["sub"], claims.get("email") if claims.get("email_verified") is True else None}
        if self._subjects and not self._subjects & shown:
            raise TokenRefusedError(f"the token is valid, but its subject {claims['sub']!r} may not call this server")


def _explain(error: jwt.PyJWTError, audience: str, issuer: str) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "the token has expired: get a new one"
        case jwt.InvalidAudienceError():
            return f"the token is for another audience than {audience}"
        case jwt.InvalidIssuerError():
            return f"the token is from another issuer than {issuer}"
        case jwt.InvalidSignatureError():
            return f"the token is not signed by {issuer}"
        case _:
            return f"the token is not valid: {error}"


class _Keys:
    """The issuer's public keys: fetched when first needed, again when an hour old or when a token names a new one."""

    def __init__(self, issuer: str, jwks_url: str, clock: Clock) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._clock = clock
        self._known: dict[str | None, jwt.PyJWK] = {}
        self._fetched_us = self._tried_us = 0
        self._lock = asyncio.Lock()

    async def of(self, kid: str | None) -> jwt.PyJWK:
        if self._due(kid):
            async with self._lock:  # one fetch for all who wait
                if self._due(kid):
                    await self._refresh()
        if kid is None and len(self._known) == 1:
            return next(iter(self._known.values()))
        try:
            return self._known[kid]
        except KeyError:
            raise TokenRefusedError(f"the token is signed with a key that {self._issuer} does not publish") from None

    def _due(self, kid: str | None) -> bool:
        now_us = self._clock.steady_us()
        if self._tried_us and now_us - self._tried_us < _REFETCH_US:
            if not self._known:
                raise TokenCheckUnavailableError(f"the keys of {self._issuer} cannot be fetched at the moment")
            return False  # made-up key ids must not make us hammer the issuer
        unknown = kid not in self._known if kid else not self._known
        return unknown or now_us - self._fetched_us >= _KEYS_LAST_US

    async def _refresh(self) -> None:
        self._tried_us = self._clock.steady_us()
        try:
            self._known = await self._fetch()
            self._fetched_us = self._tried_us
        except (aiohttp.ClientError, TimeoutError, ValueError, jwt.PyJWTError) as error:
            if not self._known:
                raise TokenCheckUnavailableError(
                    f"the keys of {self._issuer} cannot be fetched: {_line(error)}"
                ) from error
            log.warning("still using the keys of %s fetched earlier: %s", self._issuer, _line(error))

    async def _fetch(self) -> dict[str | None, jwt.PyJWK]:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as session:
            jwks_url = self._jwks_url or await self._discover(session)
            keys = jwt.PyJWKSet.from_dict(await _document(session, jwks_url))
        return {key.key_id: key for key in keys}

    async def _discover(self, session: aiohttp.ClientSession) -> str:
        found = await _document(session, self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self._issuer:  # OpenID Connect Discovery 1.0, section 4.3
            raise ValueError(f"its discovery document is that of another issuer, {found.get('issuer')!r}")
        return _check_url(str(found.get("jwks_uri")))


async def _document(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, raise_for_status=True) as response:
        found = await response.json(content_type=None)
    if not isinstance(found, dict):
        raise ValueError(f"{url} is no JSON object")
    return found


def _check_url(url: str) -> str:
    parts = urlsplit(url)
    if not parts.hostname or (parts.scheme, is_loopback(parts.hostname)) not in _TRUSTED:
        raise InvalidSettingError(f"{url!r} is no https URL: whoever answers there decides whom this server trusts")
    return url


def _line(error: Exception) -> str:
    return str(error) or type(error).__name__

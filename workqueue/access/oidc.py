"""Who may call, by OpenID Connect tokens: signed by an issuer, for an audience, not expired."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

from workqueue.access.tokens import TokenRefusedError
from workqueue.clock import Clock, SystemClock
from workqueue.errors import InvalidSettingError
from workqueue.extras import importing
from workqueue.safe_text import shown_url

with importing("oidc", "verifying OIDC tokens"):
    import jwt

    from workqueue.access.issuer_keys import IssuerKeys, SigningKey, check_issuer_url

__all__ = ["OIDCTokens"]

_REQUIRED = ("exp", "iss", "aud", "sub")
_LEEWAY = timedelta(seconds=30)
_LONGEST = 16 * 1024  # characters of a token


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
        self._issuer = check_issuer_url(issuer)
        self._audience = audience
        self._subjects = frozenset(subjects)
        self._keys = IssuerKeys(issuer, check_issuer_url(jwks_url) if jwks_url else "", clock or SystemClock())

    async def verify(self, token: str) -> None:
        await self.claims(token)

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What an accepted token says of its holder.

        Raises:
            TokenRefusedError: it is not accepted; the message may go to whoever showed it.
            TokenCheckUnavailableError: it could not be checked.
        """
        if len(token) > _LONGEST:
            raise TokenRefusedError(f"the token is longer than {_LONGEST} characters")
        key = await self._keys.of(_key_id(token))
        claims = self._claims(token, key)
        email = claims.get("email") if claims.get("email_verified") is True else None
        shown = {name for name in (claims["sub"], email) if isinstance(name, str)}
        if self._subjects and not self._subjects & shown:
            raise TokenRefusedError(f"the token is valid, but its subject {claims['sub']!r} may not call this server")
        return claims

    def _claims(self, token: str, key: SigningKey) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=key.algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY,
                options={"require": list(_REQUIRED)},
            )
        except jwt.PyJWTError as error:
            raise TokenRefusedError(_explain(error, self._audience, shown_url(self._issuer))) from error
        except Exception as error:
            raise TokenRefusedError("the token is not valid") from error  # whatever nonsense does to the library


def _key_id(token: str) -> str | None:
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except Exception as error:
        raise TokenRefusedError("the token is not valid: it has no header that can be read") from error
    return None if kid is None else str(kid)


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

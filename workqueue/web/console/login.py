"""Login by an OIDC issuer: the authorization-code flow with PKCE (RFC 7636; OpenID Connect Core, section 3.1)."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

from workqueue.access.tokens import TokenCheckUnavailableError, TokenRefusedError
from workqueue.clock import SystemClock
from workqueue.extras import importing
from workqueue.safe_text import cut, describe
from workqueue.web.console.admission import OIDCAdmission, Visitor
from workqueue.web.console.sessions import Kept, fresh_secret

__all__ = ["OIDCLogin"]

_PATIENCE = timedelta(minutes=10)
_TIMEOUT_SECONDS = 10


@dataclass(frozen=True, slots=True)
class _Begun:
    """A login under way in one browser."""

    cookie: str
    verifier: str
    nonce: str
    redirect: str
    then: str


class OIDCLogin:
    """Sends browsers to an issuer and reads what they bring back.

    Args:
        issuer: an https URL; where to log in is in its discovery document.
        client_id: what the issuer calls this console; ID tokens are for it.
        admission: whose tokens are accepted, with `client_id` as their audience.
        secret: the client's secret; '' for a public client.
    """

    def __init__(self, issuer: str, client_id: str, admission: OIDCAdmission, secret: str = "") -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._admission = admission
        self._secret = secret
        self._begun: Kept[_Begun] = Kept(SystemClock(), _PATIENCE)

    async def begin(self, cookie: str, redirect: str, then: str) -> str:
        """Where to send the browser.

        Args:
            cookie: of the browser; it must come back with it.
            redirect: where the issuer sends it back to.
            then: the page that it wanted.

        Raises:
            TokenCheckUnavailableError: the issuer cannot be reached.
        """
        begun, state = _Begun(cookie, fresh_secret(), fresh_secret(), redirect, then), fresh_secret()
        document = await self._asked(self._discover)
        self._begun.put(state, begun)
        challenge = urlsafe_b64encode(hashlib.sha256(begun.verifier.encode()).digest()).decode().rstrip("=")
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": redirect,
            "scope": "openid email",
            "state": state,
            "nonce": begun.nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        endpoint = str(document["authorization_endpoint"])
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def finish(self, cookie: str, state: str, code: str) -> tuple[Visitor, str]:
        """Who came back with `code`, and the page that was wanted.

        Raises:
            TokenRefusedError: this browser began no such login, or the issuer does not vouch for it.
            TokenCheckUnavailableError: the issuer cannot be asked.
        """
        begun = self._begun.take(state)
        if begun is None or not hmac.compare_digest(begun.cookie, cookie):
            raise TokenRefusedError("this browser began no such login, or too long ago: log in again")
        answer = await self._asked(lambda session: self._redeem(session, code, begun))
        claims = await self._admission.tokens.claims(str(answer.get("id_token", "")))
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode(), begun.nonce.encode()):
            raise TokenRefusedError("the issuer's token is of another login: log in again")
        return self._admission.visitor(claims), begun.then

    async def _asked(self, ask: Callable[[Any], Any]) -> Mapping[str, Any]:
        with importing("oidc", "login by an issuer"):
            from aiohttp import ClientError, ClientSession, ClientTimeout
        try:
            async with ClientSession(timeout=ClientTimeout(total=_TIMEOUT_SECONDS)) as session:
                found: Mapping[str, Any] = await ask(session)
                return found
        except (ClientError, TimeoutError, ValueError, KeyError, OSError) as error:
            raise TokenCheckUnavailableError(f"the issuer cannot be asked: {cut(describe(error), 300)}") from error

    async def _discover(self, session: Any) -> Mapping[str, Any]:
        from workqueue.access.issuer_keys import check_issuer_url, discovery_document

        document = await discovery_document(session, self._issuer)
        for endpoint in ("authorization_endpoint", "token_endpoint"):
            check_issuer_url(str(document[endpoint]))
        return document

    async def _redeem(self, session: Any, code: str, begun: _Begun) -> Mapping[str, Any]:
        """The tokens that the issuer gives for a code."""
        document = await self._discover(session)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": begun.redirect,
            "client_id": self._client_id,
            "code_verifier": begun.verifier,
        }
        headers = {}
        if self._secret:
            pair = f"{quote(self._client_id, '')}:{quote(self._secret, '')}"  # RFC 6749, section 2.3.1
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        async with session.post(
            document["token_endpoint"], data=form, headers=headers, allow_redirects=False
        ) as response:
            answer = await response.json(content_type=None)
        if response.status != 200 or not isinstance(answer, dict):
            raise TokenRefusedError("the issuer does not vouch for this login: log in again")
        return answer

"""Who may look at a console and who may act: bearer tokens and OIDC tokens, as roles."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from workqueue.access.tokens import TokenRefusedError, TokenVerifier
from workqueue.safe_text import visible

__all__ = ["Admission", "ClaimedTokens", "OIDCAdmission", "Role", "TokenAdmission", "Visitor"]


class Role(StrEnum):
    """What somebody may do: a viewer looks, an operator acts too."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who was let in; `name` is what the log says of what they did."""

    name: str
    role: Role


class Admission(Protocol):
    """Decides who comes in, and as what."""

    async def admit(self, token: str) -> Visitor:
        """Whose token it is.

        Raises:
            TokenRefusedError: it opens nothing.
            TokenCheckUnavailableError: it could not be checked.
        """


@dataclass(frozen=True, slots=True)
class TokenAdmission:
    """Bearer tokens: some for operators, others for viewers. The log names a token by a digest of it.

    Args:
        operators: whose tokens may act.
        viewers: whose tokens may look; None = there are none.
    """

    operators: TokenVerifier | None
    viewers: TokenVerifier | None = None

    async def admit(self, token: str) -> Visitor:
        name = f"token {hashlib.sha256(token.encode(errors='replace')).hexdigest()[:8]}"
        refused = TokenRefusedError("no token opens this console")
        for verifier, role in ((self.operators, Role.OPERATOR), (self.viewers, Role.VIEWER)):
            if verifier is None:
                continue
            try:
                await verifier.verify(token)
            except TokenRefusedError as error:
                refused = error
            else:
                return Visitor(name, role)
        raise refused


class ClaimedTokens(Protocol):
    """Checks signed tokens and reads what they claim; `workqueue.access.oidc.OIDCTokens` does."""

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What a valid token says of its holder.

        Raises:
            TokenRefusedError: it is not valid.
            TokenCheckUnavailableError: it could not be checked.
        """


@dataclass(frozen=True, slots=True)
class OIDCAdmission:
    """OIDC tokens: the log names their holders by verified e-mail address, else by subject.

    Args:
        tokens: which ones are valid.
        operators: subjects and verified e-mail addresses that may act; empty = all who come in.
    """

    tokens: ClaimedTokens
    operators: Collection[str] = ()

    async def admit(self, token: str) -> Visitor:
        return self.visitor(await self.tokens.claims(token))

    def visitor(self, claims: Mapping[str, Any]) -> Visitor:
        """Who holds a token of these claims."""
        subject = str(claims["sub"])
        email = str(claims["email"]) if claims.get("email_verified") is True and claims.get("email") else ""
        may_act = not self.operators or subject in self.operators or (email != "" and email in self.operators)
        return Visitor(visible(email or subject), Role.OPERATOR if may_act else Role.VIEWER)

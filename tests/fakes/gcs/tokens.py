"""Just enough of Google's token services to try the credential flows: every endpoint hands out a bearer token.

Sources: https://developers.google.com/identity/protocols/oauth2/service-account (`/token`),
https://cloud.google.com/iam/docs/reference/sts/rest/v1/TopLevel/token (`/v1/token`),
https://cloud.google.com/iam/docs/reference/credentials/rest (`:generateAccessToken`),
https://cloud.google.com/compute/docs/metadata/overview (`/computeMetadata`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qs

from tests.fakes.gcs.clock import ServerClock, rfc3339
from tests.fakes.gcs.errors import ApiError, invalid, invalid_credentials, login_required, no_such_path

LIFETIME_S = 3600
IMPERSONATE = "/v1/projects/-/serviceAccounts/"
METADATA = "/computeMetadata/v1"
MAY_IMPERSONATE = ("/auth/iam", "/auth/cloud-platform")


@dataclass(frozen=True, slots=True)
class Grant:
    """One token handed out: by which flow, and for whom as far as the flow says."""

    flow: str
    subject: str
    token: str
    scope: str = ""


class TokenDesk:
    """Issues bearer tokens and, on demand, insists on them.

    Args:
        clock: the server's time, for expiry texts.

    Attributes:
        required: None to let everybody in; a text to accept that token beside those issued; empty for those alone.
        granted: every token handed out, oldest first.
        failures: statuses that the next questions are answered with, first come first.
    """

    def __init__(self, clock: ServerClock) -> None:
        self.required: str | None = None
        self.granted: list[Grant] = []
        self.failures: list[int] = []
        self._clock = clock
        self._valid: set[str] = set()

    def revoke(self) -> None:
        """Void every token handed out so far, as an expiry would."""
        self._valid.clear()

    def check(self, authorization: str | None) -> None:
        """Let a request in, or not.

        Raises:
            ApiError: 401 without a bearer token, or with one that is not valid.
        """
        if self.required is None:
            return
        if not authorization:
            raise login_required()
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or not token or token not in self._valid | {self.required}:
            raise invalid_credentials()

    def answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> tuple[str, bytes]:
        """Answer a request to one of the token services with a content type and a body.

        Raises:
            ApiError: 404 for any other path; 401 for an impersonation without a token.
        """
        if self.failures:
            raise ApiError(self.failures.pop(0), "backendError", "The token service has a bad moment.")
        if path.startswith(METADATA) or path == "/":
            return self._metadata(path, headers)
        if method != "POST":
            raise no_such_path()
        if path in ("/token", "/v1/token"):
            return "application/json", json.dumps(self._exchange(path, body)).encode()
        if path.startswith(IMPERSONATE) and path.endswith(":generateAccessToken"):
            self._check_may_impersonate(headers.get("Authorization"))
            account = path.removeprefix(IMPERSONATE).partition(":")[0]
            return "application/json", json.dumps(self._impersonate(account)).encode()
        raise no_such_path()

    def _check_may_impersonate(self, authorization: str | None) -> None:
        """Real tokens that were asked for with a storage scope alone are refused, whatever their owner may do."""
        self.check(authorization)
        for grant in self.granted:
            if authorization == f"Bearer {grant.token}" and not grant.scope.endswith(MAY_IMPERSONATE):
                raise ApiError(403, "ACCESS_TOKEN_SCOPE_INSUFFICIENT", "Request had insufficient scopes.")

    def _grant(self, flow: str, subject: str, scope: str = "") -> str:
        grant = Grant(flow, subject, f"ya29.{flow}-{len(self.granted) + 1}", scope)
        self.granted.append(grant)
        self._valid.add(grant.token)
        return grant.token

    def _exchange(self, path: str, body: bytes) -> dict[str, object]:
        form = parse_qs(body.decode())
        document: dict[str, object] = {} if form else json.loads(body or b"{}")
        grant_type = form["grant_type"][0] if "grant_type" in form else str(document.get("grant_type", ""))
        flow = "sts" if path == "/v1/token" else "oauth"
        answer: dict[str, object] = {
            "access_token": self._grant(flow, grant_type, scope_of(form)),
            "expires_in": LIFETIME_S,
            "token_type": "Bearer",
        }
        if flow == "sts":
            answer["issued_token_type"] = "urn:ietf:params:oauth:token-type:access_token"
        return answer

    def _impersonate(self, account: str) -> dict[str, object]:
        expiry = rfc3339(self._clock.now_us() + LIFETIME_S * 1_000_000)
        return {"accessToken": self._grant("impersonation", account), "expireTime": expiry}

    def _metadata(self, path: str, headers: Mapping[str, str]) -> tuple[str, bytes]:
        if headers.get("Metadata-Flavor") != "Google":
            raise invalid("Missing required header: Metadata-Flavor")
        if path.endswith("/token"):
            token = {
                "access_token": self._grant("metadata", path, MAY_IMPERSONATE[1]),
                "expires_in": LIFETIME_S,
                "token_type": "Bearer",
            }
            return "application/json", json.dumps(token).encode()
        if path.endswith("/email"):
            return "application/text", b"tester@example.iam.gserviceaccount.com"
        if path == f"{METADATA}/project/project-id":
            return "application/text", b"test-project"
        return "application/text", b"computeMetadata/\n"


def scope_of(form: Mapping[str, list[str]]) -> str:
    """The scope that a token is asked for with: a field of the form, or a claim of the assertion in it."""
    assertion = form.get("assertion", [""])[0].split(".")
    if len(assertion) != 3:
        return form.get("scope", [""])[0]
    claims = json.loads(base64.urlsafe_b64decode(assertion[1] + "=="))
    return str(claims.get("scope", ""))

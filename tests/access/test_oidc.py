"""OIDC tokens: whom a server accepts, and the tokens that Google Cloud gives to clients."""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from starlette.responses import JSONResponse, RedirectResponse, Response

from tests.support.dispatching import opened
from tests.support.grpc import FixedToken, client_of
from tests.support.oidc import Issuer, MetadataServer
from workqueue import KeyStatus
from workqueue.access.google_identity import GoogleIDToken
from workqueue.access.oidc import OIDCTokens
from workqueue.access.security import ClientSecurity, ServerSecurity
from workqueue.access.tokens import TokenCheckUnavailableError, TokenRefusedError
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.clock import to_us
from workqueue.errors import InvalidSettingError, StoreUnavailableError, StoreUnusableError
from workqueue.rpc.receiver import receive
from workqueue.testing import FakeClock

HOUR = timedelta(hours=1)


@asynccontextmanager
async def accepting(**settings: object) -> AsyncIterator[tuple[Issuer, OIDCTokens]]:
    """An issuer, and the check of a server that trusts it for the audience https://me."""
    async with Issuer().served() as issuer:
        yield issuer, OIDCTokens(issuer.url, "https://me", **settings)  # type: ignore[arg-type]


async def test_a_token_of_the_issuer_for_this_audience_is_accepted() -> None:
    async with accepting() as (issuer, tokens):
        issuer.add_rsa_key("rsa")
        await tokens.verify(issuer.token())
        await tokens.verify(issuer.token("rsa"))
        await tokens.verify(issuer.token(aud=["https://other", "https://me"]))

        assert issuer.fetches == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": datetime.now(UTC) - HOUR}, "the token has expired"),
        ({"exp": None}, '"exp"'),
        ({"sub": None}, '"sub"'),
        ({"nbf": datetime.now(UTC) + HOUR}, "not yet valid"),
        ({"aud": "https://other"}, "another audience than https://me"),
        ({"aud": None}, '"aud"'),
        ({"iss": "https://other"}, "another issuer than http://127"),
    ],
    ids=["expired", "no expiry", "no subject", "not yet", "other audience", "no audience", "other issuer"],
)
async def test_a_token_that_lacks_anything_is_refused_and_told_why(changes: dict[str, object], why: str) -> None:
    async with accepting() as (issuer, tokens):
        with pytest.raises(TokenRefusedError, match=why):
            await tokens.verify(issuer.token(**changes))  # type: ignore[arg-type]


async def test_a_token_signed_by_somebody_else_is_refused() -> None:
    async with accepting() as (issuer, tokens):
        impostor = Issuer()
        impostor.url = issuer.url
        with pytest.raises(TokenRefusedError, match="not signed by http://127"):
            await tokens.verify(impostor.token())


async def test_a_token_without_a_real_signature_is_refused() -> None:
    async with accepting() as (issuer, tokens):
        claims = issuer.token().split(".")[1]
        none = base64.urlsafe_b64encode(b'{"alg":"none","kid":"first"}').decode().rstrip("=")
        shared = jwt.encode({"sub": "x"}, "s" * 32, "HS256", {"kid": "first"})
        for forged in (f"{none}.{claims}.", shared, "garbage", "a.b.c", "Bearer"):
            with pytest.raises(TokenRefusedError):
                await tokens.verify(forged)


async def test_only_the_given_subjects_and_verified_addresses_are_accepted() -> None:
    async with accepting(subjects=["producer", "me@example.com"]) as (issuer, tokens):
        await tokens.verify(issuer.token(sub="producer"))
        await tokens.verify(issuer.token(sub="1", email="me@example.com", email_verified=True))
        for stranger in (
            issuer.token(sub="1"),
            issuer.token(sub="1", email="me@example.com"),
            issuer.token(sub="1", email="you@example.com", email_verified=True),
        ):
            with pytest.raises(TokenRefusedError, match="subject '1' may not call"):
                await tokens.verify(stranger)


async def test_a_token_that_names_no_key_is_checked_against_the_only_one() -> None:
    async with accepting() as (issuer, tokens):
        await tokens.verify(issuer.token(kid=None))


async def test_a_new_key_is_found_and_made_up_keys_do_not_hammer_the_issuer() -> None:
    clock = FakeClock()
    async with accepting(clock=clock) as (issuer, tokens):
        await tokens.verify(issuer.token())
        issuer.add_key("new")
        clock.advance(timedelta(seconds=10))
        await tokens.verify(issuer.token("new"))
        for number in range(10):
            with pytest.raises(TokenCheckUnavailableError, match="again in ten seconds"):
                await tokens.verify(made_up(number))

        assert issuer.fetches == 2
        clock.advance(timedelta(seconds=10))
        with pytest.raises(TokenRefusedError, match="does not publish"):
            await tokens.verify(made_up(1))


def made_up(number: int) -> str:
    other = Issuer()
    other.add_key(f"made-up-{number}")
    return other.token(f"made-up-{number}")


async def test_a_key_that_appears_right_after_a_miss_is_not_refused_for_good() -> None:
    clock = FakeClock()
    async with accepting(clock=clock) as (issuer, tokens):
        with pytest.raises(TokenRefusedError, match="does not publish"):
            await tokens.verify(made_up(1))
        issuer.add_key("new")
        with pytest.raises(TokenCheckUnavailableError):
            await tokens.verify(issuer.token("new"))
        clock.advance(timedelta(seconds=10))
        await tokens.verify(issuer.token("new"))


@pytest.mark.parametrize("algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
async def test_a_key_without_an_algorithm_is_for_all_that_its_kind_can_do(algorithm: str) -> None:
    async with accepting() as (issuer, tokens):
        issuer.add_rsa_key("rsa")
        await tokens.verify(issuer.token("rsa", algorithm))


async def test_a_key_with_an_algorithm_is_for_that_one_only() -> None:
    async with accepting() as (issuer, tokens):
        issuer.add_rsa_key("rsa")
        issuer.details["alg"] = "PS256"
        await tokens.verify(issuer.token("rsa", "PS256"))
        with pytest.raises(TokenRefusedError):
            await tokens.verify(issuer.token("rsa", "RS256"))


async def test_a_key_for_encryption_checks_no_signature() -> None:
    async with accepting() as (issuer, tokens):
        await tokens.verify(issuer.token())
    async with accepting() as (issuer, tokens):
        issuer.details["use"] = "enc"
        with pytest.raises(TokenCheckUnavailableError):
            await tokens.verify(issuer.token())


async def test_a_key_for_signatures_is_found_beside_one_for_encryption_of_the_same_name() -> None:
    async with accepting() as (issuer, tokens):
        signing = issuer.published("first")
        for keys in ([signing, signing | {"use": "enc"}], [signing | {"use": "enc"}, signing]):
            issuer.answer = JSONResponse({"keys": keys})
            await OIDCTokens(issuer.url, "https://me").verify(issuer.token())
        await tokens.verify(issuer.token())


async def test_all_who_come_while_the_keys_are_fetched_wait_for_them() -> None:
    async with accepting() as (issuer, tokens):
        await asyncio.gather(*(tokens.verify(issuer.token()) for _ in range(20)))

        assert issuer.fetches == 1


async def test_a_new_key_is_not_called_unknown_while_the_issuer_is_down() -> None:
    clock = FakeClock()
    async with accepting(clock=clock) as (issuer, tokens):
        await tokens.verify(issuer.token())
        issuer.add_key("new")
        issuer.down = True
        clock.advance(timedelta(seconds=10))
        with pytest.raises(TokenCheckUnavailableError):
            await tokens.verify(issuer.token("new"))


DEEP = "[" * 100_000
HUGE = b'{"keys": [' + b" " * 2_000_000


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Response(HUGE), "is larger than 1048576 bytes"),
        (Response(gzip.compress(b" " * 50_000_000), headers={"content-encoding": "gzip"}), "is compressed"),
        (Response(DEEP), ""),
        (Response("[]"), "is no JSON object"),
        (JSONResponse({"keys": {}}), "holds no key"),
        (JSONResponse({"keys": [7, {"kty": []}, {"kty": "EC", "crv": "P-256", "x": 1, "y": "?"}]}), "holds no key"),
        (RedirectResponse("http://127.0.0.1:1/keys"), "answered 307"),
        (Response("no", 404), "answered 404"),
    ],
    ids=["huge", "bomb", "deep", "list", "no list", "no keys", "redirect", "missing"],
)
async def test_keys_that_are_none_cost_little_and_only_the_log_says_why(
    answer: Response, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with accepting() as (issuer, tokens):
        issuer.answer = answer
        with pytest.raises(TokenCheckUnavailableError, match=r"^the keys of the issuer cannot be fetched"):
            await tokens.verify(issuer.token())

    [line] = caplog.messages
    assert why in line
    assert len(line) < 500


@pytest.mark.parametrize(
    "claims",
    [
        {"email": ["me@example.com"], "email_verified": True},
        {"email": {"a": 1}, "email_verified": True},
        {"email_verified": [True]},
        {"sub": ["producer"]},
        {"sub": 7},
        {"aud": {"https://me": 1}},
        {"exp": 10**400},
        {"exp": [1]},
        {"nbf": 10**30},
    ],
    ids=str,
)
async def test_claims_of_any_shape_are_refused_and_break_nothing(claims: dict[str, object]) -> None:
    async with accepting(subjects=["me@example.com"]) as (issuer, tokens):
        with pytest.raises(TokenRefusedError):
            await tokens.verify(issuer.token(**claims))  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [DEEP, '{"alg":"ES256","kid":[]}', '{"alg":["ES256"]}', '"x"', "7", "{"], ids=ascii)
async def test_a_header_of_any_shape_is_refused_and_breaks_nothing(part: str) -> None:
    async with accepting() as (issuer, tokens):
        _, claims, signature = issuer.token().split(".")
        header = base64.urlsafe_b64encode(part.encode()).decode().rstrip("=")
        with pytest.raises((TokenRefusedError, TokenCheckUnavailableError)):
            await tokens.verify(f"{header}.{claims}.{signature}")


async def test_known_keys_outlast_an_outage_of_the_issuer() -> None:
    clock = FakeClock()
    async with accepting(clock=clock) as (issuer, tokens):
        await tokens.verify(issuer.token())
        issuer.down = True
        clock.advance(2 * HOUR)
        await tokens.verify(issuer.token())


async def test_without_keys_a_token_is_neither_accepted_nor_refused() -> None:
    clock = FakeClock()
    async with accepting(clock=clock) as (issuer, tokens):
        issuer.down = True
        for _ in range(2):
            with pytest.raises(TokenCheckUnavailableError, match="cannot be fetched"):
                await tokens.verify(issuer.token())
        issuer.down = False
        clock.advance(timedelta(seconds=10))
        await tokens.verify(issuer.token())


async def test_the_discovery_document_must_be_the_issuers_own(caplog: pytest.LogCaptureFixture) -> None:
    async with accepting() as (issuer, tokens):
        issuer.discovery["issuer"] = "https://other"
        with pytest.raises(TokenCheckUnavailableError):
            await tokens.verify(issuer.token())

    assert "another issuer, 'https://other'" in caplog.text


@pytest.mark.parametrize("place", ["http://issuer.example/keys", "ftp://127.0.0.1/keys", "//", "[", ""])
async def test_keys_are_fetched_over_https_only(place: str, caplog: pytest.LogCaptureFixture) -> None:
    async with accepting() as (issuer, tokens):
        issuer.discovery["jwks_uri"] = place
        with pytest.raises(TokenCheckUnavailableError):
            await tokens.verify(issuer.token())

    assert "is no https URL" in caplog.text


async def test_an_issuer_without_discovery_is_told_by_its_keys() -> None:
    async with Issuer().served() as issuer:
        issuer.down = True
        tokens = OIDCTokens(issuer.url, "https://me", jwks_url=f"{issuer.url}/keys")
        await tokens.verify(issuer.token())


@pytest.mark.parametrize(
    ("issuer", "audience", "why"),
    [
        ("http://issuer.example", "https://me", "no https URL"),
        ("issuer.example", "https://me", "no https URL"),
        ("", "https://me", "no https URL"),
        ("https://issuer.example", "", "audience is needed"),
    ],
)
async def test_settings_that_would_trust_anybody_are_refused(issuer: str, audience: str, why: str) -> None:
    with pytest.raises(InvalidSettingError, match=why):
        OIDCTokens(issuer, audience)


async def test_a_receiver_takes_keys_from_whom_the_issuer_vouches_for() -> None:
    queue = opened(MemoryQueue())
    async with (
        accepting() as (issuer, tokens),
        receive(queue, port=0, security=ServerSecurity(tokens=tokens)) as server,
    ):
        async with client_of(server, security=ClientSecurity(token=FixedToken(issuer.token()))) as client:
            await client.queue("k")
        expired = FixedToken(issuer.token(exp=datetime.now(UTC) - HOUR))
        async with client_of(server, security=ClientSecurity(token=expired)) as client:
            with pytest.raises(StoreUnusableError, match="the token has expired: get a new one"):
                await client.queue("late")

    assert (await queue.get("k")).status is KeyStatus.QUEUED
    assert (await queue.counts()).queued == 1


async def test_a_receiver_that_cannot_check_a_token_is_unavailable() -> None:
    async with accepting() as (issuer, tokens):
        issuer.down = True
        security = ClientSecurity(token=FixedToken(issuer.token()))
        async with (
            receive(opened(MemoryQueue()), port=0, security=ServerSecurity(tokens=tokens)) as server,
            client_of(server, security=security) as client,
        ):
            with pytest.raises(StoreUnavailableError, match="cannot be fetched"):
                await client.queue("k")


# Google ID tokens


async def test_a_google_id_token_opens_a_service_and_is_fetched_once() -> None:
    async with accepting() as (issuer, tokens):
        metadata = MetadataServer(issuer)
        async with (
            metadata.served() as host,
            receive(opened(MemoryQueue()), port=0, security=ServerSecurity(tokens=tokens)) as server,
        ):
            security = ClientSecurity(token=GoogleIDToken("https://me", metadata_host=host))
            async with client_of(server, security=security) as client:
                await client.queue("a")
                await client.queue("b")

        assert metadata.asked == [{"audience": "https://me", "format": "full"}]


async def test_a_google_id_token_is_renewed_before_it_expires_and_used_until_it_does() -> None:
    clock = FakeClock(to_us(datetime.now(UTC)))
    async with accepting() as (issuer, _):
        metadata = MetadataServer(issuer)
        async with metadata.served() as host:
            source = GoogleIDToken("https://me", metadata_host=host, clock=clock)
            metadata.answer = first = issuer.token(exp=datetime.now(UTC) + HOUR)
            assert await source.token() == first
            clock.advance(timedelta(minutes=56))
            metadata.down = True
            assert await source.token() == first
            metadata.down, metadata.answer = False, issuer.token(exp=datetime.now(UTC) + 2 * HOUR)
            clock.advance(timedelta(seconds=30))
            assert await source.token() == metadata.answer != first


def claimed(text: str) -> str:
    return f"e30.{base64.urlsafe_b64encode(text.encode()).decode()}.e30"


@pytest.mark.parametrize(
    "answer",
    ["garbage", "a.b.c", "e30.e30.e30", claimed("[" * 40_000), claimed('{"exp": 1e999}')],
    ids=["garbage", "letters", "empty", "deep", "endless"],
)
async def test_without_a_google_id_token_the_error_says_where_it_was_asked_for(answer: str) -> None:
    async with accepting() as (issuer, _):
        metadata = MetadataServer(issuer)
        async with metadata.served() as host:
            metadata.answer = answer
            with pytest.raises(StoreUnavailableError, match="no ID token"):
                await GoogleIDToken("https://me", metadata_host=host).token()
            metadata.down = True
            with pytest.raises(StoreUnavailableError, match=f"no Google ID token from http://{host}/.*403"):
                await GoogleIDToken("https://me", metadata_host=host).token()


def test_a_google_id_token_needs_an_audience() -> None:
    with pytest.raises(InvalidSettingError, match="audience"):
        GoogleIDToken("")

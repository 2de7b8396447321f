"""Credentials for a bucket: where tokens come from, how long they are used, and what becomes of trouble with them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcloud.aio.auth import token as google
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from tests.fakes.gcs.server import GcsServer
from tests.support.gcs import emulator, operations, start_all
from workqueue.backends import open_queue
from workqueue.backends.gcs.address import GCSSettings
from workqueue.backends.gcs.api.credentials import Credentials
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.errors import StoreUnavailableError, StoreUnusableError
from workqueue.optional import LeaseRequest
from workqueue.testing import FakeClock


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


@dataclass(frozen=True)
class Token:
    value: str
    expires_in: int = 3600


class Tokens:
    """Hands out one token after the other, or raises; counts how often it is asked."""

    def __init__(self, *tokens: str | Exception, lasts: int = 3600) -> None:
        self.tokens = list(tokens)
        self.lasts = lasts
        self.asked = 0

    async def refresh(self, *, timeout: int) -> Token:
        self.asked += 1
        token = self.tokens.pop(0) if len(self.tokens) > 1 else self.tokens[0]
        if isinstance(token, Exception):
            raise token
        return Token(token, self.lasts)


async def test_every_request_carries_a_token_renewals_included(server: GcsServer) -> None:
    server.tokens.required = "secret"

    own = GCSSettings("wq", endpoint=server.url)
    async with GCSQueue(own, tokens=Tokens("secret")) as queue:
        await queue.queue("a")
        (owned,) = await start_all(queue)
        await asyncio.to_thread(queue.renewer.tick, queue.clock.steady_us() + 6_000_000)
        assert not owned.lost.is_set()
        await owned.complete()


async def test_credentials_that_are_not_accepted_are_told(server: GcsServer) -> None:
    server.tokens.required = "secret"

    async def scenario() -> None:
        async with GCSQueue(GCSSettings("wq", endpoint=server.url), tokens=Tokens("other")):
            raise AssertionError("opened")

    with pytest.raises(StoreUnusableError, match="credentials are not accepted"):
        await scenario()


def service_account(server: GcsServer, folder: Path) -> Path:
    """A key file whose token service is the emulator's."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "sa@example.test", "private_key": text, "project_id": "p"}
    path = folder / "key.json"
    path.write_text(json.dumps(account | {"private_key_id": "1", "token_uri": f"{server.url}/token"}))
    return path


def external_account(server: GcsServer, folder: Path) -> Path:
    """Workload identity: a token of somebody else's in a file, exchanged at the emulator's STS."""
    (folder / "subject").write_text("their token")
    account = {
        "type": "external_account",
        "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/p",
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{server.url}/v1/token",
        "credential_source": {"file": str(folder / "subject")},
    }
    path = folder / "key.json"
    path.write_text(json.dumps(account))
    return path


def impersonated(server: GcsServer, folder: Path) -> Path:
    """Workload identity that acts as a service account."""
    path = external_account(server, folder)
    account = json.loads(path.read_text())
    uri = f"{server.url}/v1/projects/-/serviceAccounts/other@example.test:generateAccessToken"
    path.write_text(json.dumps(account | {"service_account_impersonation_url": uri}))
    return path


@pytest.mark.parametrize(
    ("credentials", "flows"),
    [(service_account, ["oauth"]), (external_account, ["sts"]), (impersonated, ["sts", "impersonation"])],
)
async def test_the_ambient_credentials_open_the_bucket(
    server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credentials: Any, flows: list[str]
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(credentials(server, tmp_path)))
    server.tokens.required = ""

    async with open_queue(f"gs://wq?endpoint={server.url}") as queue:
        await queue.queue("a")

    assert [grant.flow for grant in server.tokens.granted] == flows


def metadata_server(server: GcsServer, folder: Path) -> Path:
    """A machine of Google's, whose metadata server is the emulator's; it has no key file."""
    return folder / "none"


@pytest.mark.parametrize(
    ("credentials", "flow"), [(service_account, "oauth"), (external_account, "sts"), (metadata_server, "metadata")]
)
@pytest.mark.parametrize("impersonate", ["", "other@example.test"])
async def test_a_service_account_named_in_the_url_is_acted_as(
    server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, credentials: Any, flow: str, impersonate: str
) -> None:
    path = credentials(server, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("CLOUDSDK_CONFIG", "GOOGLE_APPLICATION_CREDENTIALS"):
        monkeypatch.delenv(name, raising=False)
    if path.exists():
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(path))
    account = "/v1/projects/-/serviceAccounts/{service_account}:generateAccessToken"  # addresses that no setting moves
    monkeypatch.setattr(google, "GCLOUD_ENDPOINT_GENERATE_ACCESS_TOKEN", server.url + account)
    monkeypatch.setattr(google, "GCE_ENDPOINT_TOKEN", f"{server.url}/computeMetadata/v1/instance/token")
    server.tokens.required = ""
    url = f"gs://wq?endpoint={server.url}" + (f"&impersonate={impersonate}" if impersonate else "")

    async with open_queue(url) as queue:
        await queue.queue("a")

    flows = [(grant.flow, grant.subject) for grant in server.tokens.granted]
    assert [each for each, _ in flows] == [flow] + ["impersonation"] * bool(impersonate)
    assert flows[-1][1] == impersonate or not impersonate


async def test_a_folder_of_gcloud_without_credentials_is_passed_over_or_named_where_gcloud_aio_is_too_old(
    server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setattr(google, "GCE_ENDPOINT_TOKEN", f"{server.url}/computeMetadata/v1/instance/token")
    server.tokens.required = ""

    async def flows() -> list[str]:
        async with open_queue(f"gs://wq?endpoint={server.url}"):
            return [grant.flow for grant in server.tokens.granted]

    if version("gcloud-aio-auth") >= "5.6":  # which asks for Python 3.11.3
        assert await flows() == ["metadata"]
    else:
        with pytest.raises(StoreUnusableError, match=r"cannot be read.*application_default_credentials\.json"):
            await flows()


async def test_credentials_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "none.json"))

    async def scenario() -> None:
        async with open_queue("gs://bucket"):
            raise AssertionError("opened")

    with pytest.raises(StoreUnusableError, match=r"credentials cannot be read.*none\.json"):
        await scenario()


# how long a token is used


class Seconds:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def answered(status: int) -> aiohttp.ClientResponseError:
    url = URL("http://127.0.0.1/token")
    request = aiohttp.RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict()), url)
    return aiohttp.ClientResponseError(request, (), status=status, message="said so")


async def test_a_token_is_used_for_half_its_life_and_renewed_ahead_while_it_is_used_on() -> None:
    async def scenario() -> list[str]:
        seconds, tokens = Seconds(), Tokens("one", "two", lasts=100)
        credentials = Credentials(tokens, seconds)
        used = []
        for age in (0, 49, 51, 52):
            seconds.now = 100.0 + age
            used.append(await credentials.bearer())
            await asyncio.sleep(0)
        assert tokens.asked == 2
        return used

    assert await scenario() == ["one", "one", "one", "two"]


async def test_a_token_service_that_is_down_is_not_noticed_while_the_token_is_good() -> None:
    seconds, tokens = Seconds(), Tokens("one", answered(503), lasts=100)
    credentials = Credentials(tokens, seconds)
    for age in range(0, 95, 5):
        seconds.now = 100.0 + age
        assert await credentials.bearer() == "one"
        await asyncio.sleep(0)
    assert tokens.asked == 3  # half a minute apart
    seconds.now = 196.0
    with pytest.raises(StoreUnavailableError, match="no token"):
        await credentials.bearer()


async def test_one_question_serves_all_requests_and_outlives_who_asked_it() -> None:
    tokens = Tokens("one")
    credentials = Credentials(tokens)
    asking = [asyncio.ensure_future(credentials.bearer()) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    assert await asyncio.gather(*asking[1:]) == ["one"] * 4
    assert tokens.asked == 1


# trouble that passes, and trouble that does not


@pytest.mark.parametrize(
    "trouble",
    [
        answered(503),
        answered(429),
        aiohttp.ClientConnectionError("refused"),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientPayloadError("cut off"),
        TimeoutError(),
        ConnectionResetError(),
        json.JSONDecodeError("no JSON", "<html>", 0),
        answered(425),
        OSError(24, "too many open files"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no text"),
        KeyError("access_token"),
    ],
    ids=lambda trouble: f"{type(trouble).__name__}{getattr(trouble, 'status', '')}",
)
async def test_trouble_of_the_token_service_is_tried_again(server: GcsServer, trouble: Exception) -> None:
    server.tokens.required = "good"
    tokens = Tokens(trouble, trouble, "good")

    own = GCSSettings("wq", endpoint=server.url, first_pause=0.001)
    async with GCSQueue(own, tokens=tokens) as queue:
        await queue.queue("a")

    assert tokens.asked == 3


@pytest.mark.parametrize(
    ("value", "lasts"),
    [("", 3600), ("a\r\nx: y", 3600), (None, 3600), ("t", None), ("t", 0), ("t", float("nan")), ("t", float("inf"))],
)
async def test_an_answer_that_holds_no_token_passes(value: Any, lasts: Any) -> None:
    credentials = Credentials(Tokens(value, "good", lasts=lasts))

    with pytest.raises(StoreUnavailableError, match="holds no token"):
        await credentials.bearer()


async def test_a_time_that_came_as_text_is_a_time() -> None:
    credentials = Credentials(Tokens("good", lasts="3600"))  # type: ignore[arg-type]

    assert [await credentials.bearer() for _ in range(2)] == ["good", "good"]


@pytest.mark.parametrize("trouble", [answered(400), answered(403), ValueError("no key")], ids=str)
async def test_a_token_service_that_refuses_the_credentials_is_not_asked_again(
    server: GcsServer, trouble: Exception
) -> None:
    tokens = Tokens(trouble)

    async def scenario() -> None:
        async with GCSQueue(GCSSettings("wq", endpoint=server.url), tokens=tokens):
            raise AssertionError("opened")

    with pytest.raises(StoreUnusableError, match="refuses the credentials"):
        await scenario()
    assert tokens.asked == 1


async def test_a_token_service_that_is_busy_for_a_moment_is_not_noticed(
    server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(server, tmp_path)))
    server.tokens.required, server.tokens.failures = "", [503, 429]

    async with open_queue(f"gs://wq?endpoint={server.url}") as queue:
        await queue.queue("a")

    assert len(server.tokens.granted) == 1


async def test_a_token_that_was_revoked_is_replaced_by_the_next_request(
    server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(server, tmp_path)))
    server.tokens.required = ""

    async with open_queue(f"gs://wq?endpoint={server.url}") as queue:
        server.tokens.revoke()
        await asyncio.gather(*(queue.queue(f"{number}") for number in range(10)))

    assert len(server.tokens.granted) == 2
    assert sorted(operations(server)[-10:]) == [f"insert queued/{number}" for number in range(10)]  # side by side


async def test_a_second_refusal_is_taken_as_final(server: GcsServer) -> None:
    server.tokens.required = "good"
    tokens = Tokens("good", "bad")

    async with GCSQueue(GCSSettings("wq", endpoint=server.url), tokens=tokens) as queue:
        server.tokens.required = "another"
        with pytest.raises(StoreUnusableError, match="credentials are not accepted"):
            await queue.queue("a")

    assert tokens.asked == 2


async def test_a_key_file_that_is_gone_for_a_moment_costs_no_lease(
    server: GcsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Renewals have connections of their own, and read the file when they renew for the first time."""
    key = service_account(server, tmp_path)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
    server.tokens.required = ""

    async with open_queue(f"gs://wq?endpoint={server.url}", clock=(clock := FakeClock())) as queue:
        await queue.queue("a")
        (owned,) = (await queue.lease(LeaseRequest(1, 1))).started
        text = key.read_text()
        key.unlink()
        await asyncio.to_thread(clock.advance, timedelta(minutes=6))
        assert not owned.lost.is_set()
        key.write_text(text)
        await asyncio.to_thread(clock.advance, timedelta(minutes=10))
        assert await owned.complete()

    assert {
        record.getMessage().partition(":")[0] for record in caplog.records if record.levelno >= logging.WARNING
    } == {"lease renewal of 1 keys failed, trying again"}


# who pays


async def test_of_a_bucket_whose_requesters_pay_the_url_says_who_pays(server: GcsServer) -> None:
    server.store.create_bucket("theirs", billing={"requesterPays": True})

    async with open_queue(f"gs://theirs?endpoint={server.url}&anonymous=true&user_project=ours-42") as queue:
        await queue.queue("a")
        (owned,) = await start_all(queue)  # type: ignore[arg-type]
        await owned.complete()


async def test_a_bucket_whose_requesters_pay_asks_for_the_setting(server: GcsServer) -> None:
    server.store.create_bucket("theirs", billing={"requesterPays": True})

    async def scenario() -> None:
        async with open_queue(f"gs://theirs?endpoint={server.url}&anonymous=true"):
            raise AssertionError("opened")

    with pytest.raises(StoreUnusableError, match="user_project=PROJECT"):
        await scenario()

"""Ways to run the GCS emulator, in a thread, on a loop or as a process, and the credentials it hands out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from gcloud.aio.auth import Token

from tests.fakes.gcs.process import GcsProcess
from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.server import GcsServer

# Credentials


@pytest.mark.parametrize(
    ("header", "status", "reason"),
    [
        ({}, 401, "required"),
        ({"Authorization": "Bearer wrong"}, 401, "authError"),
        ({"Authorization": "Basic secret"}, 401, "authError"),
        ({"Authorization": "Bearer secret"}, 200, ""),
    ],
    ids=["none", "wrong", "no bearer", "right"],
)
def test_a_required_token_keeps_others_out(
    server: GcsServer, client: RawClient, header: dict[str, str], status: int, reason: str
) -> None:
    """json_api/v1/status-codes: 401, required and authError."""
    server.tokens.required = "secret"
    client.headers.update(header)
    answer = client.list_objects()
    assert answer.status == status
    assert status == 200 or answer.reason == reason


def service_account(server: GcsServer, folder: Path) -> str:
    """A service account key file whose token endpoint is the emulator's."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "sa@example.test", "private_key": text, "project_id": "p"}
    path = folder / "key.json"
    path.write_text(json.dumps(account | {"private_key_id": "1", "token_uri": f"{server.url}/token"}))
    return str(path)


async def test_a_service_account_gets_a_token_that_opens_the_bucket(server: GcsServer, tmp_path: Path) -> None:
    """https://developers.google.com/identity/protocols/oauth2/service-account."""
    server.tokens.required = ""

    async def scenario() -> int:
        async with aiohttp.ClientSession() as session:
            scopes = ["https://www.googleapis.com/auth/devstorage.read_write"]
            token = Token(service_file=service_account(server, tmp_path), session=session, scopes=scopes)
            headers = {"Authorization": f"Bearer {await token.get()}"}
            async with session.get(f"{server.url}/storage/v1/b/wq/o", headers=headers) as answer:
                return answer.status

    assert await scenario() == 200
    assert [grant.subject for grant in server.tokens.granted] == ["urn:ietf:params:oauth:grant-type:jwt-bearer"]


def test_a_revoked_token_is_refused(server: GcsServer, client: RawClient) -> None:
    server.tokens.required = ""
    token = client.send("POST", "/token", b"grant_type=refresh_token").json["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"
    before = client.list_objects().status
    server.tokens.revoke()
    assert (before, client.list_objects().status) == (200, 401)


def test_impersonation_takes_a_token_and_gives_another(server: GcsServer, client: RawClient) -> None:
    """https://cloud.google.com/iam/docs/reference/credentials/rest: generateAccessToken."""
    server.tokens.required = "mine"
    path = "/v1/projects/-/serviceAccounts/other@example.test:generateAccessToken"
    assert client.send("POST", path, b"{}").status == 401
    client.headers["Authorization"] = "Bearer mine"
    assert client.send("POST", path, b"{}").json.keys() == {"accessToken", "expireTime"}
    assert server.tokens.granted[0].subject == "other@example.test"


def test_the_metadata_server_insists_on_its_header(client: RawClient) -> None:
    """https://cloud.google.com/compute/docs/metadata/overview: Metadata-Flavor: Google."""
    path = "/computeMetadata/v1/instance/service-accounts/default/token"
    refused = client.send("GET", path)
    client.headers["Metadata-Flavor"] = "Google"
    assert (refused.status, client.send("GET", path).json["token_type"]) == (400, "Bearer")


# Ways to run it


async def test_the_server_runs_on_the_loop_of_the_test() -> None:
    async def scenario() -> int:
        async with GcsServer() as server, aiohttp.request("GET", f"{server.url}/storage/v1/b/wq/o") as answer:
            return answer.status

    assert await scenario() == 200


@pytest.fixture(scope="module")
def process() -> Iterator[GcsProcess]:
    with GcsProcess(["wq", "other"]) as running:
        yield running


def test_a_process_serves_its_buckets(process: GcsProcess) -> None:
    with RawClient(process.url, "other") as client:
        assert client.insert("a").status == 200
    assert [stored["name"] for stored in process.admin("GET", "dump?bucket=other")] == ["a"]


def test_a_process_takes_faults_and_tells_counts(process: GcsProcess) -> None:
    process.admin("POST", "reset")
    process.admin("POST", "faults", operation="list", status=503, times=2)
    with RawClient(process.url) as client:
        assert [client.list_objects().status for _ in range(3)] == [503, 503, 200]
    assert process.admin("GET", "counts") == {"requests": {"list": 3}, "classes": {"A": 3}}
    assert [entry["fault"] for entry in process.admin("GET", "log")] == ["503", "503", ""]


def test_a_process_is_filled_and_emptied(process: GcsProcess) -> None:
    assert process.admin("POST", "fill", bucket="wq", prefix="q/", count=1500, metadata={"k": "v"}) == {"stored": 1500}
    with RawClient(process.url) as client:
        assert [len(page["items"]) for page in client.pages(prefix="q/")] == [1000, 500]
    assert process.admin("POST", "remove", bucket="wq", prefix="q/") == {"removed": 1500}


def test_a_process_takes_settings_and_time(process: GcsProcess) -> None:
    process.admin("POST", "settings", denied=["storage.objects.list"], principal="me@example.test")
    with RawClient(process.url) as client:
        assert client.list_objects().message.startswith("me@example.test does not have storage.objects.list")
    process.admin("POST", "settings", denied=[])
    before = process.admin("GET", "clock")["now"]
    assert process.admin("POST", "clock", advance=3600)["now"] - before >= 3600


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("nothing", {}, 404), ("faults", {"colour": "red"}, 400), ("fill", {"bucket": "wq"}, 400)],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_senseless_request_to_a_process_is_refused(
    process: GcsProcess, path: str, body: dict[str, Any], status: int
) -> None:
    with pytest.raises(HTTPError) as caught:
        process.admin("POST", path, **body)
    caught.value.close()
    assert caught.value.code == status


def test_a_process_ends_with_its_parents_pipe() -> None:
    with GcsProcess() as process:
        pid, url = process.pid, process.url
    assert not Path(f"/proc/{pid}").exists() or not Path("/proc").exists()
    with RawClient(url) as client, pytest.raises(ConnectionRefusedError):
        client.list_objects()

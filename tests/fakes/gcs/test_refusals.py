"""What the GCS emulator says of buckets, and how it refuses, against the published rules of the JSON API.

Each test's docstring names the page it holds the emulator to, below https://cloud.google.com/storage/docs/.
"""

from __future__ import annotations

import pytest

from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.server import GcsServer

UPLOAD = "/upload/storage/v1/b/wq/o?uploadType="


# Buckets


def test_a_bucket_answers_with_its_project_and_policies(server: GcsServer, client: RawClient) -> None:
    """json_api/v1/buckets: projectNumber, retentionPolicy, softDeletePolicy."""
    server.store.create_bucket("kept", project_number=42, retentionPolicy={"retentionPeriod": "60"})
    answer = client.send("GET", "/storage/v1/b/kept").json
    assert (answer["projectNumber"], answer["retentionPolicy"]) == ("42", {"retentionPeriod": "60"})
    assert answer["softDeletePolicy"] == {"retentionDurationSeconds": "0"}


def test_a_bucket_is_created_once(client: RawClient) -> None:
    """json_api/v1/buckets/insert, json_api/v1/status-codes: 409 conflict for a bucket one owns already."""
    first = client.call("POST", "/storage/v1/b?project=p", {"name": "new"})
    second = client.call("POST", "/storage/v1/b?project=p", {"name": "new"})
    assert (first.status, second.status, second.reason) == (200, 409, "conflict")


@pytest.mark.parametrize("path", ["", "/o", "/o/name"])
def test_a_missing_bucket_is_404(client: RawClient, path: str) -> None:
    """json_api/v1/status-codes: 404, notFound."""
    answer = client.send("GET", "/storage/v1/b/missing" + path)
    assert (answer.status, answer.message) == (404, "The specified bucket does not exist.")


def test_an_object_under_retention_cannot_be_deleted_or_replaced(server: GcsServer) -> None:
    """bucket-lock: until its age exceeds the retention period; json_api/v1/status-codes: retentionPolicyNotMet."""
    server.store.create_bucket("kept", retentionPolicy={"retentionPeriod": "60"})
    with RawClient(server.url, "kept") as client:
        client.insert("a")
        refused = client.delete("a")
        assert (refused.status, refused.reason, client.insert("a").status) == (403, "retentionPolicyNotMet", 403)
        server.clock.advance(61)
        assert client.delete("a").status == 204


# Refusals


@pytest.mark.parametrize(
    ("permission", "method", "path"),
    [
        ("storage.buckets.get", "GET", "/storage/v1/b/wq"),
        ("storage.objects.list", "GET", "/storage/v1/b/wq/o"),
        ("storage.objects.get", "GET", "/storage/v1/b/wq/o/a"),
        ("storage.objects.update", "PATCH", "/storage/v1/b/wq/o/a"),
        ("storage.objects.delete", "DELETE", "/storage/v1/b/wq/o/a"),
        ("storage.objects.create", "POST", UPLOAD + "media&name=b"),
        ("storage.objects.delete", "POST", UPLOAD + "media&name=a"),
        ("storage.objects.get", "POST", "/storage/v1/b/wq/o/a/copyTo/b/wq/o/b"),
        ("storage.objects.create", "POST", "/storage/v1/b/wq/o/a/copyTo/b/wq/o/b"),
    ],
)
def test_a_missing_permission_is_403_and_named(server: GcsServer, permission: str, method: str, path: str) -> None:
    """access-control/iam-json: the permission each method needs; the words are those of the real service."""
    server.store.put("wq", "a")
    server.store.denied.add(permission)
    with RawClient(server.url) as client:
        answer = client.send(method, path, b"" if method != "GET" else None)
    assert (answer.status, answer.reason) == (403, "forbidden")
    assert f"does not have {permission} access to the Google Cloud Storage " in answer.message
    assert answer.message.endswith(f"Permission '{permission}' denied on resource (or it may not exist).")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/storage/v1/b/wq/o?ifGenerationMatch=1"),
        ("GET", "/storage/v1/b/wq/o?maxResult=1"),
        ("DELETE", "/storage/v1/b/wq/o/a?ifSourceGenerationMatch=1"),
        ("PATCH", "/storage/v1/b/wq/o/a?ifGenerationMatches=1"),
        ("POST", UPLOAD + "media&name=b&generation=1"),
        ("GET", "/storage/v1/b/wq/o/a?ifGenerationMatch=latest"),
    ],
)
def test_a_parameter_that_the_method_does_not_take_is_refused(client: RawClient, method: str, path: str) -> None:
    """Stricter than the service, which ignores them: a misspelt precondition must not pass for a kept one."""
    answer = client.send(method, path)
    assert (answer.status, answer.reason) == (400, "invalidParameter")


def test_entity_tag_headers_are_refused_rather_than_ignored(client: RawClient) -> None:
    """request-preconditions: ETags are preconditions too; this emulator has none and says so."""
    client.headers["If-Match"] = "CAE="
    assert client.get("a").status == 501


@pytest.mark.parametrize(
    ("path", "body", "content_type", "status"),
    [
        ("media", b"x", "text/plain", 400),
        ("multipart", b"no parts", "multipart/related; boundary=b", 400),
        ("multipart", b"--b\r\n\r\n{}\r\n--b--", "multipart/related; boundary=b", 400),
        ("multipart", b"x", "text/plain", 400),
        ("resumable", b"{}", "application/json", 501),
        ("", b"x", "text/plain", 400),
    ],
    ids=["no name", "no parts", "one part", "no boundary", "resumable", "no upload type"],
)
def test_a_malformed_upload_is_refused(
    client: RawClient, path: str, body: bytes, content_type: str, status: int
) -> None:
    """json_api/v1/objects/insert: what each upload type must carry."""
    assert client.send("POST", UPLOAD + path, body, content_type).status == status


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"metadata": 1}'])
def test_a_body_that_is_no_resource_is_refused(client: RawClient, body: bytes) -> None:
    """json_api/v1/status-codes: 400."""
    client.insert("a")
    assert client.send("PATCH", "/storage/v1/b/wq/o/a", body, "application/json").status == 400


def test_a_path_that_is_no_method_is_404(client: RawClient) -> None:
    """json_api/v1: the methods there are."""
    assert [client.send("GET", path).status for path in ("/storage/v1/bogus", "/storage/v1/b", "/nope")] == [404] * 3

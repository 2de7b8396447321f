"""The GCS emulator against the published rules of the JSON API: objects, names, metadata, copies.

Each test's docstring names the page it holds the emulator to, below https://cloud.google.com/storage/docs/ unless it
says otherwise. Preconditions, listing, refusals and faults have files of their own.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest

from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.server import GcsServer

UPLOAD = "/upload/storage/v1/b/wq/o?uploadType="


# Writing and reading


def test_an_inserted_object_is_read_back_byte_for_byte(client: RawClient) -> None:
    """json_api/v1/objects/get: alt=media returns the data."""
    client.insert("a", b"\x00payload\r\n--\xff")
    assert client.get("a", alt="media").body == b"\x00payload\r\n--\xff"


def test_an_object_of_several_megabytes_is_taken(client: RawClient) -> None:
    """https://cloud.google.com/storage/quotas: up to 5 TiB; queue payloads are small but not that small."""
    assert client.insert("a", bytes(5_000_000)).json["size"] == "5000000"


def test_an_object_is_visible_to_a_list_as_soon_as_its_insert_is_answered(client: RawClient) -> None:
    """consistency: read-after-write and list-after-write are strongly consistent."""
    client.insert("a")
    assert [item["name"] for item in client.list_objects().json["items"]] == ["a"]


def test_a_media_upload_takes_its_name_and_type_from_the_request(client: RawClient) -> None:
    """json_api/v1/objects/insert: uploadType=media, `name` is required in the query."""
    answer = client.send("POST", UPLOAD + "media&name=a%2Fb", b"body", "text/csv")
    assert (answer.json["name"], answer.json["contentType"], answer.json["size"]) == ("a/b", "text/csv", "4")


def test_a_multipart_upload_carries_metadata_and_media(client: RawClient) -> None:
    """json_api/v1/objects/insert: uploadType=multipart, metadata first, then media."""
    stored = client.upload({"name": "a", "cacheControl": "no-store", "metadata": {"k": "v"}}, b"x").json
    assert (stored["metadata"], stored["cacheControl"], stored["size"]) == ({"k": "v"}, "no-store", "1")


def test_the_name_in_the_query_overrides_the_name_in_the_metadata(client: RawClient) -> None:
    """json_api/v1/objects/insert: `name` overrides the object metadata's name value."""
    assert client.upload({"name": "in-metadata"}, name="in-query").json["name"] == "in-query"


def test_int64_fields_are_strings(client: RawClient) -> None:
    """json_api/v1/objects: generation, metageneration (long) and size (unsigned long) travel as strings."""
    stored = client.insert("a").json
    assert [type(stored[name]) for name in ("generation", "metageneration", "size")] == [str, str, str]


def test_times_are_rfc_3339_in_milliseconds_of_utc(client: RawClient) -> None:
    """json_api/v1/objects: timeCreated and updated in RFC 3339 format."""
    stored = client.insert("a").json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stored["timeCreated"])
    assert stored["updated"] == stored["timeCreated"]


def test_an_object_without_custom_metadata_has_no_metadata_field(client: RawClient) -> None:
    """json_api/v1/objects: unset fields are absent."""
    assert "metadata" not in client.insert("a").json


def test_a_missing_object_is_404_not_found(client: RawClient) -> None:
    """json_api/v1/status-codes: 404, notFound."""
    answer = client.get("missing")
    assert (answer.status, answer.reason, answer.message) == (404, "notFound", "No such object: wq/missing")


def test_a_missing_object_read_as_media_is_404_in_plain_text(client: RawClient) -> None:
    """json_api/v1/objects/get: with alt=media the answer is no JSON."""
    answer = client.get("missing", alt="media")
    assert (answer.status, answer.body) == (404, b"No such object: wq/missing")


def test_a_read_of_an_old_generation_is_404(client: RawClient) -> None:
    """json_api/v1/objects/get: `generation` selects a revision; without versioning old ones are gone."""
    first = client.insert("a").json["generation"]
    client.insert("a")
    assert client.get("a", generation=first).status == 404


def test_a_deleted_object_is_gone_and_the_answer_is_empty(client: RawClient) -> None:
    """json_api/v1/objects/delete: an empty response body; a second delete is 404."""
    client.insert("a")
    first, second = client.delete("a"), client.delete("a")
    assert (first.status, first.body, second.status) == (204, b"", 404)


def test_a_wrong_md5_is_refused_and_stores_nothing(client: RawClient) -> None:
    """json_api/v1/objects/insert: a supplied md5Hash is checked against the data."""
    assert client.upload({"name": "a", "md5Hash": "AAAAAAAAAAAAAAAAAAAAAA=="}, b"x").status == 400
    assert client.get("a").status == 404


def test_fields_cuts_the_answer_down(client: RawClient) -> None:
    """json_api#partial-response: fields=a,b/c and a(b)."""
    answer = client.insert("a", metadata={"k": "v", "l": "w"}, fields="name,metadata/k")
    assert answer.json == {"name": "a", "metadata": {"k": "v"}}


# Generation and metageneration


def test_every_write_gives_a_new_and_greater_generation(client: RawClient) -> None:
    """metadata#generation-number: changed by every upload, copy and rewrite."""
    generations = [int(client.insert("a").json["generation"]) for _ in range(20)]
    assert generations == sorted(set(generations))


def test_a_deleted_and_recreated_object_never_gets_its_generation_back(server: GcsServer, client: RawClient) -> None:
    """metadata#generation-number: unique, even when the server's clock is turned back."""
    first = int(client.insert("a").json["generation"])
    client.delete("a")
    server.clock.advance(-3600)
    assert int(client.insert("a").json["generation"]) > first


def test_a_patch_counts_the_metageneration_up_and_keeps_the_generation(client: RawClient) -> None:
    """metadata#generation-number: metageneration starts at 1 and grows with each metadata update."""
    created = client.insert("a").json
    patched = client.patch("a", {"metadata": {"k": "v"}}).json
    assert (created["metageneration"], patched["metageneration"]) == ("1", "2")
    assert patched["generation"] == created["generation"]


def test_a_new_generation_starts_at_metageneration_one(client: RawClient) -> None:
    """metadata#generation-number: metageneration is reset for each new generation."""
    client.insert("a")
    client.patch("a", {})
    assert client.insert("a").json["metageneration"] == "1"


def test_a_patch_moves_updated_and_not_time_created(server: GcsServer, client: RawClient) -> None:
    """json_api/v1/objects: updated is the time of the last metadata change."""
    created = client.insert("a").json
    server.clock.advance(60)
    patched = client.patch("a", {}).json
    assert patched["timeCreated"] == created["timeCreated"] < patched["updated"]


# Metadata


def test_a_patch_merges_custom_metadata_entry_by_entry(client: RawClient) -> None:
    """json_api/v1/objects/patch, json_api#patch: what is not named stays."""
    client.insert("a", metadata={"keep": "1", "change": "2"})
    assert client.patch("a", {"metadata": {"change": "3"}}).json["metadata"] == {"keep": "1", "change": "3"}


def test_a_null_in_a_patch_deletes_a_custom_entry(client: RawClient) -> None:
    """json_api#patch: set a field to null to delete it."""
    client.insert("a", metadata={"keep": "1", "drop": "2"})
    assert client.patch("a", {"metadata": {"drop": None}}).json["metadata"] == {"keep": "1"}


def test_a_null_metadata_in_a_patch_deletes_all_custom_entries(client: RawClient) -> None:
    """json_api#patch: the same for a whole nested object."""
    client.insert("a", metadata={"k": "v"})
    assert "metadata" not in client.patch("a", {"metadata": None}).json


def test_a_patch_of_a_fixed_key_field_leaves_the_others(client: RawClient) -> None:
    """metadata#editable: contentType and friends may be patched one at a time."""
    client.upload({"name": "a", "contentType": "text/csv", "contentLanguage": "en"})
    patched = client.patch("a", {"contentLanguage": "de"}).json
    assert (patched["contentType"], patched["contentLanguage"]) == ("text/csv", "de")


def test_a_patch_cannot_change_what_the_service_sets(client: RawClient) -> None:
    """json_api/v1/objects: name, generation, timeCreated and the like are not writable."""
    created = client.insert("a").json
    patched = client.patch("a", {"generation": "1", "name": "b", "timeCreated": "2000-01-01T00:00:00Z"}).json
    assert [patched[k] for k in ("name", "generation", "timeCreated")] == [
        "a",
        created["generation"],
        created["updated"],
    ]


def test_an_update_replaces_the_metadata_as_a_whole(client: RawClient) -> None:
    """json_api/v1/objects/update: a full object resource, not a patch."""
    client.upload({"name": "a", "cacheControl": "no-store", "metadata": {"old": "1"}})
    updated = client.update("a", {"metadata": {"new": "2"}}).json
    assert (updated["metadata"], "cacheControl" in updated, updated["metageneration"]) == ({"new": "2"}, False, "2")


@pytest.mark.parametrize(
    ("metadata", "status"),
    [
        ({"k": "v" * 4096}, 200),
        ({"k": "v" * 4097}, 400),
        ({"k" * 1024: "v"}, 200),
        ({"k" * 1025: "v"}, 400),
        ({"a": "x" * 4095, "b": "x" * 4095}, 200),
        ({"a": "x" * 4095, "b": "x" * 4095, "c": ""}, 400),
        ({"ä": "ü" * 2049}, 400),
    ],
    ids=["4 KiB value", "longer value", "1 KiB key", "longer key", "8 KiB in all", "one byte more", "counted in bytes"],
)
def test_custom_metadata_has_limits(client: RawClient, metadata: dict[str, object], status: int) -> None:
    """https://cloud.google.com/storage/quotas: 8 KiB; reference/rpc/google.storage.v1: 1 KiB a key, 4 KiB a value."""
    assert client.insert("a", metadata=metadata).status == status


def test_a_patch_is_held_to_the_limit_of_the_merged_metadata(client: RawClient) -> None:
    """https://cloud.google.com/storage/quotas: the limit is per object, not per request."""
    client.insert("a", metadata={"a": "x" * 4095})
    assert client.patch("a", {"metadata": {"b": "y" * 4096}}).status == 400
    assert client.get("a").json["metageneration"] == "1"


def test_metadata_that_is_no_string_is_refused(client: RawClient) -> None:
    """json_api/v1/objects: metadata values are strings."""
    assert client.insert("a", metadata={"attempts": 3}).status == 400


# Names


@pytest.mark.parametrize(
    "name", ["a/b/c", "päth/ключ/鍵", "what?#%25&=+ ;", "a//b", "/", "%2F", "..a", "😀", "q\t\x7f"]
)
def test_a_name_of_any_characters_names_exactly_one_object(client: RawClient, name: str) -> None:
    """objects#naming, request-endpoints#encoding: percent-encoded, slashes included."""
    client.insert(name, b"mine")
    assert client.get(name, alt="media").body == b"mine"
    assert client.copy(name, f"{name}-copy").json["name"] == f"{name}-copy"
    assert client.delete(name).status == 204


@pytest.mark.parametrize(
    "name", ["x" * 1025, "ü" * 513, "a\nb", "a\rb", ".", "..", ".well-known/acme-challenge/x"], ids=ascii
)
def test_a_forbidden_name_is_refused(client: RawClient, name: str) -> None:
    """objects#naming: at most 1024 bytes of UTF-8, no CR or LF, not `.`, `..` or an ACME challenge."""
    assert client.insert(name).status == 400


def test_a_name_of_1024_bytes_is_taken(client: RawClient) -> None:
    """objects#naming: 1-1024 bytes when UTF-8 encoded."""
    assert client.insert("ü" * 512).status == 200


def test_an_unencoded_slash_in_an_object_path_is_no_object(client: RawClient) -> None:
    """request-endpoints#encoding: `/` in an object name must be sent as %2F."""
    client.insert("a/b")
    assert client.send("GET", "/storage/v1/b/wq/o/a/b").status == 404


def test_a_name_that_is_no_utf_8_is_refused(client: RawClient) -> None:
    """objects#naming: names are Unicode."""
    assert client.send("GET", "/storage/v1/b/wq/o/%ff").status == 400


# Copies


def test_a_copy_without_a_body_takes_over_data_and_metadata(client: RawClient) -> None:
    """json_api/v1/objects/copy, Request body: if it is empty, the source's editable metadata is applied."""
    client.upload({"name": "a", "contentType": "text/csv", "metadata": {"k": "v"}}, b"data")
    copied = client.copy("a", "b").json
    assert (copied["contentType"], copied["metadata"]) == ("text/csv", {"k": "v"})
    assert client.get("b", alt="media").body == b"data"


def test_a_copy_with_metadata_takes_over_none_of_the_sources(client: RawClient) -> None:
    """json_api/v1/objects/rewrite, Request body: only an empty body copies metadata, contentType included."""
    client.upload({"name": "a", "contentType": "text/csv", "metadata": {"old": "1"}}, b"data")
    copied = client.copy("a", "b", {"metadata": {"new": "2"}}).json
    assert (copied["metadata"], "contentType" in copied, copied["size"]) == ({"new": "2"}, False, "4")


def test_a_copy_is_a_new_object_with_a_creation_time_of_its_own(server: GcsServer, client: RawClient) -> None:
    """metadata#generation-number, json_api/v1/objects: a copy has its own generation and times."""
    source = client.insert("a").json
    client.patch("a", {})
    server.clock.advance(60)
    copied = client.copy("a", "b").json
    assert (copied["metageneration"], copied["timeCreated"] > source["timeCreated"]) == ("1", True)
    assert int(copied["generation"]) > int(source["generation"])


def test_a_rewrite_is_done_at_once_and_wraps_the_resource(client: RawClient) -> None:
    """json_api/v1/objects/rewrite: one request within one location and class."""
    client.insert("a", b"data")
    answer = client.rewrite("a", "b").json
    assert (answer["kind"], answer["done"], answer["objectSize"]) == ("storage#rewriteResponse", True, "4")
    assert answer["resource"]["name"] == "b"


def test_a_copy_of_a_missing_source_is_404(client: RawClient) -> None:
    """json_api/v1/objects/copy with json_api/v1/status-codes: 404."""
    assert client.copy("missing", "b").status == 404


def test_a_copy_of_a_generation_that_is_gone_is_404(client: RawClient) -> None:
    """json_api/v1/objects/copy: sourceGeneration selects a revision of the source."""
    old = client.insert("a").json["generation"]
    client.insert("a")
    assert client.copy("a", "b", sourceGeneration=old).status == 404


# The server's clock


def test_dates_generations_and_times_follow_the_servers_clock(server: GcsServer, client: RawClient) -> None:
    """The Date header (RFC 9110 section 6.6.1), timeCreated and generations come from one clock that tests set."""
    moment = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)
    server.clock.freeze()
    server.clock.set(moment)
    answer = client.insert("a")
    assert parsedate_to_datetime(answer.headers["Date"]) == moment
    assert answer.json["timeCreated"] == "2031-02-03T04:05:06.000Z"
    assert int(answer.json["generation"]) // 1_000_000 == int(moment.timestamp())

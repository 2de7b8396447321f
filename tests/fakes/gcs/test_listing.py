"""objects.list of the GCS emulator, against https://cloud.google.com/storage/docs/json_api/v1/objects/list."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sortedcontainers import SortedList  # type: ignore[import-untyped]

from tests.fakes.gcs.listing import ListQuery, decode_token, list_page
from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.server import GcsServer


def names(client: RawClient, **params: object) -> list[str]:
    """The names on the first page."""
    return [item["name"] for item in client.list_objects(**params).json.get("items", [])]


def test_names_come_in_the_order_of_their_utf_8_bytes(server: GcsServer, client: RawClient) -> None:
    stored = ["é", "z", "Z", "a/", "a", "a!", "\uffff", "😀", "a0"]
    server.store.fill("wq", stored)
    assert names(client) == sorted(stored, key=str.encode)


def test_an_empty_listing_has_neither_items_nor_prefixes(client: RawClient) -> None:
    assert client.list_objects(prefix="nothing").json == {"kind": "storage#objects"}


def test_a_listed_object_is_the_whole_resource(client: RawClient) -> None:
    stored = client.insert("a", metadata={"k": "v"}).json
    assert client.list_objects().json["items"] == [stored]


def test_a_deleted_object_is_listed_no_more(server: GcsServer, client: RawClient) -> None:
    """https://cloud.google.com/storage/docs/consistency: list after delete."""
    server.store.fill("wq", ["a", "b", "c"])
    client.delete("b")
    assert names(client) == ["a", "c"]


def test_a_prefix_keeps_names_that_begin_with_it(server: GcsServer, client: RawClient) -> None:
    server.store.fill("wq", ["queue", "queued", "queued/a", "queued/b", "queued0", "r"])
    assert names(client, prefix="queued/") == ["queued/a", "queued/b"]


def test_start_offset_is_inclusive_and_end_offset_exclusive(server: GcsServer, client: RawClient) -> None:
    server.store.fill("wq", ["a", "b", "c", "d"])
    assert names(client, startOffset="b", endOffset="d") == ["b", "c"]


def test_offsets_narrow_a_prefix(server: GcsServer, client: RawClient) -> None:
    server.store.fill("wq", ["a/1", "q/1", "q/2", "q/3", "z/1"])
    assert names(client, prefix="q/", startOffset="q/2") == ["q/2", "q/3"]
    assert names(client, prefix="q/", startOffset="a", endOffset="zz") == ["q/1", "q/2", "q/3"]


def test_a_delimiter_lists_like_a_directory(server: GcsServer, client: RawClient) -> None:
    """The example on the page."""
    server.store.fill("wq", ["a/b", "a/c", "d", "e", "e/f", "e/g/h"])
    root, below = client.list_objects(delimiter="/").json, client.list_objects(delimiter="/", prefix="e/").json
    assert ([item["name"] for item in root["items"]], root["prefixes"]) == (["d", "e"], ["a/", "e/"])
    assert ([item["name"] for item in below["items"]], below["prefixes"]) == (["e/f"], ["e/g/"])


def test_pages_together_hold_everything_once(server: GcsServer, client: RawClient) -> None:
    server.store.fill("wq", [f"{number:04}" for number in range(25)])
    pages = client.pages(maxResults=10)
    assert [len(page["items"]) for page in pages] == [10, 10, 5]
    assert [item["name"] for page in pages for item in page["items"]] == [f"{number:04}" for number in range(25)]


def test_the_last_page_has_no_token_even_when_it_is_full(server: GcsServer, client: RawClient) -> None:
    server.store.fill("wq", ["a", "b"])
    assert "nextPageToken" not in client.list_objects(maxResults=2).json


def test_items_and_prefixes_share_max_results(server: GcsServer, client: RawClient) -> None:
    server.store.fill("wq", ["a/1", "a/2", "b", "c/1", "d"])
    pages = client.pages(maxResults=2, delimiter="/")
    assert [(page.get("prefixes"), [i["name"] for i in page.get("items", [])]) for page in pages] == [
        (["a/"], ["b"]),
        (["c/"], ["d"]),
    ]


@pytest.mark.parametrize("asked", ["1000", "1001", "1000000", None])
def test_a_page_holds_at_most_a_thousand(server: GcsServer, client: RawClient, asked: str | None) -> None:
    server.store.fill("wq", [f"{number:04}" for number in range(1001)])
    assert len(names(client, **({"maxResults": asked} if asked else {}))) == 1000


def test_an_object_created_behind_the_token_is_not_seen_again(server: GcsServer, client: RawClient) -> None:
    """The page: a new object is not seen if it is in a part of the namespace already listed."""
    server.store.fill("wq", ["b", "d", "f"])
    token = client.list_objects(maxResults=2).json["nextPageToken"]
    server.store.fill("wq", ["a", "c", "e"])
    assert names(client, pageToken=token) == ["e", "f"]


def test_a_token_outlives_the_object_it_names(server: GcsServer, client: RawClient) -> None:
    server.store.fill("wq", ["a", "b", "c"])
    token = client.list_objects(maxResults=2).json["nextPageToken"]
    client.delete("b")
    assert names(client, pageToken=token) == ["c"]


@pytest.mark.parametrize("token", ["nonsense", "AAAA", "====", "CgE="])
def test_a_token_that_was_never_handed_out_is_refused(client: RawClient, token: str) -> None:
    assert client.list_objects(pageToken=token).status == 400


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_senseless_max_results_is_refused(client: RawClient, limit: str) -> None:
    assert client.list_objects(maxResults=limit).status == 400


def test_what_google_s_go_client_spells_out_is_taken_as_the_default_that_it_is(client: RawClient) -> None:
    """json_api/v1/objects/list: optional parameters; the Go client sends every one, empty or false."""
    client.insert("a")
    off = dict.fromkeys(("versions", "includeTrailingDelimiter", "includeFoldersAsPrefixes"), "false")
    empty = dict.fromkeys(("delimiter", "endOffset", "matchGlob", "pageToken", "prefix", "startOffset"), "")
    (page,) = client.pages(alt="json", projection="full", **off, **empty)
    assert [item["name"] for item in page["items"]] == ["a"]
    assert [client.list_objects(**{name: "true"}).status for name in off] == [501] * 3


def test_fields_selects_within_items(server: GcsServer, client: RawClient) -> None:
    """https://cloud.google.com/storage/docs/json_api#partial-response."""
    for name in ("a", "b", "c"):
        server.store.put("wq", name, {"priority": "1", "other": "2"})
    page = client.list_objects(maxResults=2, fields="items(name,metadata/priority),nextPageToken").json
    assert page["items"] == [{"name": name, "metadata": {"priority": "1"}} for name in ("a", "b")]
    assert page.keys() == {"items", "nextPageToken"}


@pytest.mark.parametrize("fields", ["items(", "items(name", "(name)", "items(name))", "a,,b", "a b", ""])
def test_a_malformed_selector_is_refused(client: RawClient, fields: str) -> None:
    assert client.list_objects(fields=fields).status == (400 if fields else 200)


def test_a_page_of_a_large_bucket_costs_as_much_as_a_page_of_a_small_one(server: GcsServer) -> None:
    """A page is cut by bisection: 100 times the names must not cost even three times the time."""
    server.store.create_bucket("small")
    server.store.fill("small", (f"queued/{number:06}" for number in range(1_000)))
    server.store.fill("wq", (f"queued/{number:06}" for number in range(100_000)))

    def fastest(bucket: str) -> float:
        query = ListQuery(prefix="queued/", start="queued/000500", limit=400)
        spent = []
        for _ in range(20):
            started = time.perf_counter()
            server.store.list_objects(bucket, query)
            spent.append(time.perf_counter() - started)
        return min(spent)

    assert fastest("wq") < 3 * fastest("small")


def plain_listing(everything: set[str], query: ListQuery) -> tuple[list[str], list[str]]:
    """The whole listing, by the words of the page and without an index."""
    found = sorted(
        name
        for name in everything
        if name.startswith(query.prefix) and name >= query.start and not (query.end and name >= query.end)
    )
    prefixes = {query.common_prefix(name) for name in found} - {""}
    return [name for name in found if not query.common_prefix(name)], sorted(prefixes)


TEXT = st.text(st.sampled_from("ab/\ud7ff\ue000\U0010ffff"), max_size=5)


@given(
    st.sets(TEXT.filter(bool), max_size=25), TEXT, st.sampled_from(["", "/", "a", "/a"]), TEXT, TEXT, st.integers(1, 4)
)
def test_pages_agree_with_the_plain_reading_of_the_rules(
    everything: set[str], prefix: str, delimiter: str, start: str, end: str, limit: int
) -> None:
    query = ListQuery(prefix, delimiter, start, end, limit=limit)
    index = SortedList(everything)
    page = list_page(index, query)
    found, prefixes = list(page.names), list(page.prefixes)
    while page.next_token:
        assert len(found) + len(prefixes) < len(everything), "the pages do not come to an end"
        page = list_page(index, ListQuery(prefix, delimiter, start, end, decode_token(page.next_token), limit))
        assert 0 < len(page.names) + len(page.prefixes) <= limit
        found += page.names
        prefixes += page.prefixes
    assert (found, prefixes) == plain_listing(everything, query)

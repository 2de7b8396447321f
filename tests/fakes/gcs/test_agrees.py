"""The same scripts against our emulator and the public one: where the public one is right, both must say the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest

from tests.fakes.gcs.public import PublicEmulator
from tests.fakes.gcs.raw import RawClient
from tests.fakes.gcs.server import GcsServer

Script = Callable[[RawClient, str], object]
FOLDERS = (f"run{number}/" for number in count())


@pytest.fixture(scope="module")
def clients() -> Iterator[tuple[RawClient, RawClient]]:
    """Ours and theirs; each script works below a prefix of its own."""
    with (
        GcsServer() as ours,
        PublicEmulator() as theirs,
        RawClient(ours.url) as our_client,
        RawClient(theirs.url) as their_client,
    ):
        yield our_client, their_client


def names(pages: list[dict[str, list[dict[str, str]]]]) -> list[list[str]]:
    """The names on each page."""
    return [[item["name"] for item in page.get("items", [])] for page in pages]


def create_if_absent(client: RawClient, folder: str) -> object:
    return [client.insert(folder + "a", ifGenerationMatch=0).status for _ in range(3)]


def create_after_delete(client: RawClient, folder: str) -> object:
    client.insert(folder + "a")
    return client.delete(folder + "a").status // 100, client.insert(folder + "a", ifGenerationMatch=0).status


def race_to_create(client: RawClient, folder: str) -> object:
    def create(_: int) -> int:
        with RawClient(client.url) as racer:
            return racer.insert(folder + "a", ifGenerationMatch=0).status

    with ThreadPoolExecutor(8) as pool:
        return sorted(pool.map(create, range(16)))


def page_through(client: RawClient, folder: str) -> object:
    for number in range(25):
        client.insert(f"{folder}{number * 7 % 25:03}")
    return names(client.pages(prefix=folder, maxResults=10))


def page_exactly(client: RawClient, folder: str) -> object:
    for number in range(4):
        client.insert(f"{folder}{number}")
    return names(client.pages(prefix=folder, maxResults=2))


def order_by_bytes(client: RawClient, folder: str) -> object:
    for name in ("é", "z", "Z", "a/b", "a", "a!", "a0", "😀"):
        client.insert(folder + name)
    return names(client.pages(prefix=folder))


def narrow_by_offsets(client: RawClient, folder: str) -> object:
    for name in "abcd":
        client.insert(folder + name)
    return names(client.pages(prefix=folder, startOffset=folder + "b", endOffset=folder + "d"))


def list_directories(client: RawClient, folder: str) -> object:
    for name in ("a/b", "a/c", "d", "e", "e/f", "e/g/h"):
        client.insert(folder + name)
    answers = [client.list_objects(prefix=folder + below, delimiter="/").json for below in ("", "e/")]
    return [(names([answer]), answer.get("prefixes")) for answer in answers]


def read_back(client: RawClient, folder: str) -> object:
    stored = client.insert(folder + "päth/?#%25&+ 鍵", b"\x00\xff", {"k": "v", "ü": "ö"}).json
    read = client.get(stored["name"]).json
    kept = {name: read[name] for name in ("name", "bucket", "metadata", "size", "md5Hash", "generation", "kind")}
    same = kept.pop("generation") == stored["generation"]
    return kept, same, client.get(stored["name"], alt="media").body


def miss(client: RawClient, folder: str) -> object:
    missing = folder + "missing"
    return [
        client.get(missing).status,
        client.get(missing, alt="media").status,
        client.patch(missing, {}).status,
        client.delete(missing).status,
        client.rewrite(missing, folder + "b").status,
    ]


def patch_entries(client: RawClient, folder: str) -> object:
    client.insert(folder + "a", metadata={"keep": "1", "change": "2"})
    client.patch(folder + "a", {"metadata": {"change": "3", "add": "4"}})
    return client.get(folder + "a").json["metadata"]


def copy_over(client: RawClient, folder: str) -> object:
    client.insert(folder + "a", b"data", {"old": "1"})
    done = client.rewrite(folder + "a", folder + "b").json["done"]
    copied = client.get(folder + "b").json
    return done, copied["metadata"], copied["size"], client.get(folder + "b", alt="media").body


SCRIPTS: tuple[Script, ...] = (
    create_if_absent,
    create_after_delete,
    race_to_create,
    page_through,
    page_exactly,
    order_by_bytes,
    narrow_by_offsets,
    list_directories,
    read_back,
    miss,
    patch_entries,
    copy_over,
)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_both_emulators_say_the_same(clients: tuple[RawClient, RawClient], script: Script) -> None:
    folder = next(FOLDERS)
    ours, theirs = (script(client, folder) for client in clients)
    assert ours == theirs

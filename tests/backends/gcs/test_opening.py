"""Opening a bucket: URLs and settings, credentials, one clear line for what is wrong, warnings about bills."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import unquote

import pytest

from tests.fakes.gcs.faults import Fault
from tests.fakes.gcs.public import PublicEmulator
from tests.fakes.gcs.server import GcsServer
from tests.support.gcs import bucket_queue, emulator, start_all
from workqueue.backends import open_queue
from workqueue.backends.gcs.address import GCSSettings
from workqueue.backends.gcs.backend import GCSQueue
from workqueue.backends.gcs.bucket import warnings_about
from workqueue.backends.url import QueueURL
from workqueue.errors import (
    InvalidKeyError,
    InvalidSettingError,
    QueueClosedError,
    StoreUnavailableError,
    StoreUnusableError,
    WorkQueueError,
)
from workqueue.optional import LeaseRequest
from workqueue.options import Options

DAY = 86_400


@pytest.fixture
def server() -> Iterator[GcsServer]:
    with emulator() as running:
        yield running


def settings(url: str, **environment: str) -> GCSSettings:
    return GCSSettings.from_url(QueueURL.parse(url), environment)


# URLs


def test_the_url_says_where_the_bucket_is_and_how_to_work_it() -> None:
    found = settings("gs://bucket/team/a?refresh=5s&keep=2000&spread=false&exact=true&impersonate=sa@p.test")
    assert (found.bucket, found.prefix, found.refresh) == ("bucket", "team/a/", timedelta(seconds=5))
    assert (found.keep, found.spread, found.exact, found.impersonate) == (2000, False, True, "sa@p.test")
    assert (found.endpoint, found.anonymous) == ("https://storage.googleapis.com", False)


@pytest.mark.parametrize("host", ["127.0.0.1:4443", "http://127.0.0.1:4443", "http://127.0.0.1:4443/"])
def test_an_emulator_is_asked_without_credentials(host: str) -> None:
    found = settings("gs://bucket", STORAGE_EMULATOR_HOST=host)
    assert (found.endpoint, found.anonymous) == ("http://127.0.0.1:4443", True)


@pytest.mark.parametrize(
    "url",
    [
        "gs://",
        "gs:///prefix",
        "gs://UPPER",
        "gs://bucket?refresh=soon",
        "gs://bucket?keep=10",
        "gs://bucket?exact=yes",
        "gs://bucket?impersonate=nobody",
        "gs://bucket?endpoint=nowhere/else",
        "gs://bucket?unknown=1",
        "gs://bucket?lease=10s&renew=8s",
        "gs://bucket/a#b",
        "gs://bucket/a%0Ab",
        "gs://bucket/%ff",
        f"gs://bucket/{'x' * 501}",
    ],
)
def test_a_url_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(InvalidSettingError):
        open_queue(url)


@pytest.mark.parametrize("owner", ["x" * 256, "a\nb"])
def test_an_owner_that_no_metadata_can_hold_is_refused(owner: str) -> None:
    with pytest.raises(InvalidSettingError, match="owner"):
        open_queue("gs://bucket", owner=owner)


async def test_a_prefix_is_a_queue_of_its_own_and_takes_from_the_length_of_keys(server: GcsServer) -> None:
    async with (
        bucket_queue(server, None) as plain,
        bucket_queue(server, None, prefix="some/longer/prefix/") as below,
    ):
        await below.queue("a" * 993)
        with pytest.raises(InvalidKeyError, match="993"):
            await below.queue("a" * 994)
        await plain.queue("a" * 1000)
        assert [len(owned.key) for owned in await start_all(below)] == [993]
        assert [len(owned.key) for owned in await start_all(plain)] == [1000]


@pytest.mark.parametrize(
    "prefix",
    ["queued", "in-progress", "dead-letter", "in-progress-2", "a/queued", "in-progress/b", "%71ueued", "a%2Fqueued/b"],
)
def test_a_prefix_where_another_queue_keeps_its_keys_is_refused(prefix: str) -> None:
    """The queue one level up lists `queued/`, `in-progress` and `dead-letter/`, and would take the keys away."""
    with pytest.raises(InvalidSettingError, match="keys of another queue"):
        settings(f"gs://bucket/{prefix}")


@pytest.mark.parametrize("prefix", ["team", "team/a", "not-queued", "a%20b", "é"])
def test_another_prefix_is_as_good_as_any(prefix: str) -> None:
    assert settings(f"gs://bucket/{prefix}").prefix == f"{unquote(prefix)}/"


async def test_a_closed_queue_says_so(server: GcsServer) -> None:
    async with bucket_queue(server, None) as queue:
        await queue.queue("a")
        (owned,) = await start_all(queue)
    for verb in (queue.queue("b"), queue.counts(), owned.complete(), start_all(queue)):
        with pytest.raises(QueueClosedError):
            await verb


# what is wrong, in one line


async def lease(queue: GCSQueue) -> None:
    await start_all(queue)


async def enqueue(queue: GCSQueue) -> None:
    await queue.queue("a")


async def enqueue_again(queue: GCSQueue) -> None:
    await queue.queue("a")
    await queue.queue("a", Options(priority=1))


async def start(queue: GCSQueue) -> None:
    await queue.queue("a")
    raise (await queue.lease(LeaseRequest(1, 1))).errors[0]  # the queued object could not be copied, or deleted


Use = Callable[[GCSQueue], Awaitable[None]]


@pytest.mark.parametrize(
    ("denied", "use"),
    [
        ("storage.objects.create", enqueue),
        ("storage.objects.list", lease),
        ("storage.objects.delete", start),
        ("storage.objects.get", start),
        ("storage.objects.get", enqueue_again),
        ("storage.objects.update", enqueue_again),
    ],
)
async def test_a_permission_that_is_missing_is_named(server: GcsServer, denied: str, use: Use) -> None:
    server.store.denied = {denied}

    async def scenario() -> None:
        async with bucket_queue(server, None) as queue:
            await use(queue)

    with pytest.raises(WorkQueueError, match=denied) as caught:
        await scenario()
    assert "\n" not in str(caught.value)


async def test_a_bucket_that_is_missing_is_found_out_at_once(server: GcsServer) -> None:
    async def scenario() -> None:
        async with bucket_queue(server, None, bucket="gone"):
            raise AssertionError("opened")

    with pytest.raises(StoreUnusableError, match="there is no bucket 'gone'"):
        await scenario()


@pytest.mark.parametrize("use", [enqueue, lease])
async def test_a_bucket_that_went_since_is_no_lost_key(server: GcsServer, use: Use) -> None:
    server.store.denied = {"storage.buckets.get"}

    async def scenario() -> None:
        async with bucket_queue(server, None, bucket="gone") as queue:
            await use(queue)

    with pytest.raises(StoreUnusableError, match="there is no bucket 'gone'"):
        await scenario()


async def test_a_project_that_may_not_be_billed_is_told_in_its_own_words(server: GcsServer) -> None:
    async def scenario() -> None:
        async with bucket_queue(server, None) as queue:
            server.faults.add(Fault("insert", status=403))
            await queue.queue("a")

    with pytest.raises(StoreUnusableError, match="not allowed: "):
        await scenario()


async def test_a_store_that_is_down_does_not_keep_a_process_from_starting() -> None:
    with emulator() as gone:
        queue = bucket_queue(gone, None)
    async with queue:
        with pytest.raises(StoreUnavailableError, match="3 tries"):
            await queue.queue("a")


# buckets that break a queue, or bill it


@pytest.mark.parametrize(
    ("resource", "warning"),
    [
        ({}, None),
        ({"softDeletePolicy": {"retentionDurationSeconds": "0"}}, None),
        ({"softDeletePolicy": {"retentionDurationSeconds": str(7 * DAY)}}, "keeps deleted objects for 7 days"),
        ({"retentionPolicy": {"retentionPeriod": "60"}}, "retains objects for 60 s"),
        ({"defaultEventBasedHold": True}, "holds every new object"),
        ({"versioning": {"enabled": True}}, "keeps a version"),
        ({"lifecycle": {"rule": [{"action": {"type": "Delete"}, "condition": {"age": 30}}]}}, "lifecycle rule"),
        ({"lifecycle": {"rule": [{"action": {"type": "SetStorageClass"}}]}}, None),
    ],
)
def test_a_bucket_that_breaks_or_bills_the_queue_is_warned_of(resource: dict[str, Any], warning: str | None) -> None:
    warnings = warnings_about(resource)
    assert len(warnings) == (warning is not None)
    assert warning is None or warnings[0].startswith((warning, f"has a {warning}"))


async def test_the_warning_comes_when_the_bucket_is_opened(server: GcsServer, caplog: pytest.LogCaptureFixture) -> None:
    server.store.create_bucket("kept", softDeletePolicy={"retentionDurationSeconds": str(7 * DAY)})

    async def scenario() -> None:
        async with bucket_queue(server, None, bucket="kept"):
            pass

    with caplog.at_level(logging.WARNING):
        await scenario()
    assert [record.message for record in caplog.records] == [
        "gs://kept keeps deleted objects for 7 days, each billed for so long: set soft delete to 0"
    ]


# the public emulator, for what it does right: creating if absent, paging, the paths of real clients


async def test_keys_are_queued_once_and_listed_in_pages_on_the_public_emulator() -> None:
    async def scenario(url: str) -> None:
        async with open_queue(f"gs://wq?endpoint={url}&anonymous=true") as queue:
            await asyncio.gather(*(queue.queue(f"k/{number % 40}") for number in range(80)))
            await queue.queue("é ..%2f?#")
            assert len((await queue.enumerate(100)).queued) == 41
            owned = await (await queue.enumerate(1)).queued[0].start()
            assert await owned.complete()
            assert (await queue.counts()).queued == 40

    with PublicEmulator() as public:
        await scenario(public.url)

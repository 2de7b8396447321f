"""What the console shows: a queue, the keys of a place, one key; harmlessly, whatever is in it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.web.console.browsing import console_at, stored
from workqueue import Options
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.optional import Counts, LeaseRequest
from workqueue.testing import FlakyQueue
from workqueue.web.console import ConsoleSettings

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "admin\u202egnp.exe",
    "{{ 7 * 7 }}",
    "a\u200bb",
    "k" * 1000,
    "a/../b?c=d&e#f%20+",
    "日本語",
]


async def test_the_overview_counts_the_keys_of_each_place(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        for key in ("a", "b", "c"):
            await queue.queue(key)
        await queue.queue("later", Options(not_before=datetime.now(UTC) + timedelta(hours=1)))
        started = await (await queue.enumerate(1)).queued[0].start()

        page = await browser.get("/")

        assert page.path == "/q/default"
        assert "eligible 2 delayed 1 in progress 1 twins 0 dead-lettered 0 unreadable 0" in page.said
        assert "pod-7 1" in page.said
        await started.complete()


async def test_eligible_keys_are_listed_in_the_order_in_which_they_start(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        for number, priority in enumerate([0, 20, 10]):
            await queue.queue(f"key-{number}", Options(priority=priority))

        said = (await browser.get("/q/default/keys/queued")).said

        assert said.index("key-1") < said.index("key-2") < said.index("key-0")


async def test_pages_follow_each_other_until_the_last_key(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await queue.queue_many([(f"key-{number:03}", Options()) for number in range(250)])
        page, seen = await browser.get("/q/default/keys/queued"), list[str]()

        while True:
            seen += [f"key-{n:03}" for n in range(250) if f"key=key-{n:03}" in page.text]
            if 'rel="next"' not in page.text:
                break
            page = await browser.get(page.text.split('rel="next" href="')[1].split('"')[0].replace("&amp;", "&"))

        assert seen == [f"key-{number:03}" for number in range(250)]


async def test_a_filter_narrows_a_place_down(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        for key in ("builds/1", "builds/2", "mail/1"):
            await queue.queue(key, Options(priority=len(key)))

        page = await browser.get("/q/default/keys/queued?prefix=builds/&priority=8")

        assert "builds/1" in page.said
        assert "builds/2" in page.said
        assert "mail/1" not in page.said


async def test_a_filter_that_no_index_answers_says_how_far_it_looked() -> None:
    async with MemoryQueue() as queue, console_at(queue) as browser:
        await queue.queue_many([(f"key-{number}", Options()) for number in range(10_100)])

        page = await browser.get("/q/default/keys/queued?prefix=nothing")

        assert "0 match among the 10,000 keys looked at" in page.said
        assert "Look further" in page.said


async def test_a_key_is_shown_in_every_place_where_it_is(tmp_path: Path) -> None:
    meta = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    settings = ConsoleSettings(trace_link="https://traces.example/{trace_id}")
    async with stored(tmp_path) as queue, console_at(queue, settings) as browser:
        await queue.queue("a", Options(payload=b'{"b":[1.10,{}]}', meta=meta))
        await (await (await queue.enumerate(1)).queued[0].start()).dead_letter("it broke")
        await queue.queue("a", Options(payload=b"\x00\xff", meta=meta))
        started = await (await queue.enumerate(1)).queued[0].start()
        await queue.queue("a")

        page = await browser.get("/q/default/key?key=a")

        for fact in ("In progress", "owner pod-7", "Queued again (twin)", "Dead-lettered", "error it broke"):
            assert fact in page.said
        assert "00000000 00 ff" in page.said
        assert '"b": [ 1.10, {} ] }' in page.said
        assert 'href="https://traces.example/4bf92f3577b34da6a3ce929d0e0e4736"' in page.text
        await started.complete()


@pytest.mark.parametrize("key", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_key_is_harmless_wherever_it_is_shown(tmp_path: Path, key: str) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await queue.queue(key, Options(payload=key.encode()))
        await (await (await queue.enumerate(1)).queued[0].start()).dead_letter(f"error of {key}")

        listed = await browser.get("/q/default/keys/dead-lettered")
        link = listed.text.split('<td class="key"><a href="')[1].split('"')[0].replace("&amp;", "&")
        shown = await browser.get(link)

        for page in (listed, shown):
            assert page.status == 200
            assert "<script>alert" not in page.text
            assert "<img" not in page.text
            assert "\u202e" not in page.text
            assert "\u200b" not in page.text
        assert "error of" in shown.said


async def test_an_error_of_several_lines_keeps_them_on_the_page_of_its_key(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await queue.queue("a")
        [owned] = (await queue.lease(LeaseRequest(1, 1))).started
        await owned.dead_letter("HTTP 503\n  at line 2\u202e\x01")

        page = await browser.get("/q/default/key?key=a")

        assert "<bdi>HTTP 503\n  at line 2\\u202e\\x01</bdi>" in page.text


async def test_the_page_of_a_key_says_that_errors_before_the_last_one_are_elsewhere(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await queue.queue("a")
        for number in range(2):
            [owned] = (await queue.lease(LeaseRequest(1, 1))).started
            await owned.requeue(error=f"HTTP 50{number}")
        [owned] = (await queue.lease(LeaseRequest(1, 1))).started
        await owned.dead_letter("HTTP 504")

        said = (await browser.get("/q/default/key?key=a")).said

        assert "error HTTP 504 The queue keeps the last error alone" in said


async def test_a_key_that_is_nowhere_is_said_to_be_nowhere(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        page = await browser.get("/q/default/key?key=gone")

        assert page.status == 404
        assert "This key is nowhere" in page.said


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/q/other", 404),
        ("/q/default/keys/nowhere", 400),
        ("/q/default/keys/queued?cursor=nonsense", 400),
        ("/q/default/keys/queued?priority=high", 400),
        ("/q/default/keys/queued?prefix=%ff", 400),
        ("/q/default/key?key=", 404),
        ("/q/default/sweeps/7", 404),
        ("/elsewhere", 404),
    ],
)
async def test_an_address_that_makes_no_sense_is_refused_in_words(tmp_path: Path, path: str, status: int) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        page = await browser.get(path)

        assert page.status == status
        assert "Traceback" not in page.text


async def test_a_store_that_is_down_is_said_to_be_down() -> None:
    async with FlakyQueue(MemoryQueue()) as queue, console_at(queue) as browser:
        queue.fail("counts", times=100)

        page = await browser.get("/q/default")

        assert page.status == 503
        assert "The store does not answer" in page.said


async def test_a_store_that_answers_nothing_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def hanging() -> Counts:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async with MemoryQueue() as queue, console_at(queue) as browser:
        monkeypatch.setattr(queue, "counts", hanging)
        monkeypatch.setattr("workqueue.web.console.app._PATIENCE_SECONDS", 0.1)

        page = await browser.get("/q/default")

    assert asked.is_set()
    assert page.status == 503
    assert "There was no answer within 0.1 s. This page looks again by itself" in page.said


async def test_every_answer_forbids_what_a_page_needs_not(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        for path in ("/q/default", "/static/console.css", "/nowhere"):
            headers = (await browser.get(path)).headers

            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert "unsafe" not in headers["Content-Security-Policy"]


async def test_style_and_script_are_small_and_nothing_comes_from_elsewhere(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        sizes = [len((await browser.get(f"/static/console.{kind}")).text) for kind in ("css", "js")]
        page = await browser.get("/q/default")

        assert min(sizes) > 0
        assert sum(sizes) < 30_000
        assert "://" not in page.text

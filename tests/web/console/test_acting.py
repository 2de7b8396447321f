"""What is done in the console is seen to happen in the queue, whoever else acts, and is logged with who did it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.web.console.browsing import console_at, stored
from workqueue import KeyStatus, Options
from workqueue.fallbacks import FullQueue
from workqueue.throttle import Configuration


async def given_up(queue: FullQueue, *keys: str, error: str = "it broke") -> None:
    """Dead letters of these keys."""
    for key in keys:
        await queue.queue(key, Options(priority=1000))
        (found,) = (await queue.enumerate(1)).queued
        await (await found.start()).dead_letter(error)


async def test_a_key_is_enqueued_with_all_that_the_form_says(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        page = await browser.get("/q/default")

        shown = await browser.submit(
            page, "/q/default/enqueue", key="a/b", priority="7", delay="5m", payload='{"x":1}\r\n'
        )

        state = await queue.get("a/b")
        assert (state.priority, state.payload) == (7, b'{"x":1}\n')
        assert state.not_before is not None
        assert timedelta(minutes=4) < state.not_before - datetime.now(UTC) <= timedelta(minutes=5)
        assert "enqueued" in shown.said


async def test_selected_dead_letters_are_redriven_and_no_others(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await given_up(queue, "a", "b", "c")
        page = await browser.get("/q/default/keys/dead-lettered")

        shown = await browser.submit(page, "/q/default/act", verb="redrive", place="dead-lettered", at=["a", "b"])

        assert [(await queue.get(key)).status for key in "abc"] == [
            *(KeyStatus.QUEUED, KeyStatus.QUEUED, KeyStatus.DEAD_LETTER)
        ]
        assert "2 keys re-driven" in shown.said


async def test_what_cannot_be_undone_asks_once_more(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await queue.queue("a")
        page = await browser.get("/q/default/keys/queued")

        asked = await browser.submit(page, "/q/default/act", verb="drop", place="queued", at="a")
        kept = (await queue.find("a")).queued is not None
        done = await browser.submit(asked, "/q/default/act", verb="drop", place="queued", at="a", sure="yes")

        assert "Drop 1 key?" in asked.said
        assert kept
        assert "1 key dropped" in done.said
        assert (await queue.find("a")).queued is None


async def test_a_key_in_progress_is_released_from_its_owner(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await queue.queue("a")
        owned = await (await queue.enumerate(1)).queued[0].start()
        page = await browser.get("/q/default/key?key=a")

        await browser.submit(page, "/q/default/act", verb="release", place="in-progress", at="a", sure="yes")

        assert (await queue.get("a")).status is KeyStatus.QUEUED
        assert not await owned.complete()


@pytest.mark.parametrize("floor", [False, True])
async def test_a_delayed_key_is_run_now_unless_a_floor_holds_it(tmp_path: Path, floor: bool) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        later = datetime.now(UTC) + timedelta(hours=1)
        await queue.queue("a", Options(priority=-5, not_before=later, not_before_floor=floor))
        page = await browser.get("/q/default/keys/delayed")

        shown = await browser.submit(page, "/q/default/act", verb="run-now", place="delayed", at="a")

        assert [key.key for key in (await queue.enumerate()).queued] == ([] if floor else ["a"])
        assert (await queue.get("a")).priority == -5
        assert ("a floor holds it" in shown.said) is floor


async def test_starts_are_paused_resumed_and_limited(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        page = await browser.get("/q/default")
        seen = []
        for fields in (
            {"change": "pause"},
            {"change": "limits", "concurrency": "3", "starts_per_second": "0.5"},
            {"change": "resume"},
            {"change": "limits", "concurrency": "", "starts_per_second": ""},
        ):
            page = await browser.submit(page, "/q/default/configure", **fields)
            seen.append(await queue.configuration())

        assert seen == [
            Configuration(paused=True),
            Configuration(3, True, 0.5),
            Configuration(3, False, 0.5),
            Configuration(),
        ]


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("enqueue", {"key": "a\x07b"}),
        ("enqueue", {"key": "a", "delay": "soon"}),
        ("enqueue", {"key": "a", "priority": "high"}),
        ("configure", {"change": "limits", "concurrency": "0"}),
        ("configure", {"change": "everything"}),
        ("act", {"verb": "explode", "place": "queued", "at": "a"}),
        ("act", {"verb": "redrive", "place": "queued", "at": "a"}),
        ("act", {"verb": "redrive", "place": "dead-lettered"}),
        ("act", {"verb": "redrive", "place": "dead-lettered", "at": "%ff"}),
        ("sweeps", {"verb": "redrive", "place": "dead-lettered", "rate": "-1"}),
    ],
)
async def test_what_cannot_be_done_is_refused_in_words(tmp_path: Path, path: str, fields: dict[str, str]) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        page = await browser.submit(await browser.get("/q/default"), f"/q/default/{path}", **fields)

        assert page.status == 400
        assert "That cannot be" in page.said
        assert (await queue.counts()).queued == 0


async def test_of_two_operators_at_one_key_the_second_is_told_that_it_is_gone(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await given_up(queue, "a")
        first = second = await browser.get("/q/default/keys/dead-lettered")

        await browser.submit(first, "/q/default/act", verb="redrive", place="dead-lettered", at="a")
        shown = await browser.submit(second, "/q/default/act", verb="drop", place="dead-lettered", at="a", sure="yes")

        assert "a: it is not dead-lettered any more" in shown.said
        assert (await queue.get("a")).status is KeyStatus.QUEUED


async def test_each_action_is_logged_with_who_did_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "workqueue.web.console")
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await given_up(queue, "a")
        page = await browser.get("/q/default/keys/dead-lettered")

        await browser.submit(page, "/q/default/act", verb="redrive", place="dead-lettered", at="a")

    (record,) = [each for each in caplog.records if each.name.endswith("acting")]
    assert record.getMessage() == "redrive a by anybody at 127.0.0.1: re-driven"
    assert (vars(record)["key"], vars(record)["queue"], vars(record)["who"]) == ("a", "default", "anybody at 127.0.0.1")


async def test_a_notice_is_shown_once(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        first = await browser.submit(await browser.get("/q/default"), "/q/default/configure", change="pause")
        again = await browser.get("/q/default")

        assert 'role="status">paused<' in first.text
        assert 'role="status">paused<' not in again.text


async def test_a_notice_waits_for_the_next_page_while_an_open_one_is_brought_up_to_date(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        page = await browser.get("/q/default")
        fields, origin = {"form_token": page.form_token, "change": "pause"}, {"origin": browser.origin}
        where = f"{browser.url}/q/default/configure"
        async with browser.session.post(where, data=fields, headers=origin, allow_redirects=False) as answer:
            assert answer.status == 303

        update = await browser.get("/q/default", **{"x-update": "1"})
        shown = await browser.get("/q/default")

        assert 'role="status">paused<' not in update.text
        assert 'role="status">paused<' in shown.text


async def test_a_form_that_would_lead_elsewhere_leads_back(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        await given_up(queue, "a")
        page = await browser.get("/q/default/keys/dead-lettered")

        shown = await browser.submit(
            page, "/q/default/act", verb="redrive", place="dead-lettered", at="a", back="//elsewhere.example/"
        )

        assert shown.path == "/q/default/keys/dead-lettered"

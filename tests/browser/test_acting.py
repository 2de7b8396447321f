"""What an operator does in a real Chromium happens in the queue: on SQLite and Redis, with JavaScript and without."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tests.browser.chromium import At, at_console
from tests.support.redis import until
from workqueue import Options
from workqueue.optional import LeaseRequest


async def state(at: At) -> tuple[int, int, int, int]:
    """How many keys are eligible, delayed, in progress, dead-lettered."""
    counts = await at.queue.counts()
    return counts.queued, counts.not_before, counts.in_progress, counts.dead_lettered


async def select(at: At, place: str, key: str) -> None:
    await at.go(f"/keys/{place}")
    await at.page.get_by_label(f"Select {key}", exact=True).check()


async def test_a_key_is_enqueued_as_the_form_says(url: str, script: bool) -> None:
    async with at_console(url, java_script_enabled=script) as at:
        await at.go()
        form = at.page.get_by_role("region", name="Enqueue a key")
        for label, text in (("key", "from/the browser"), ("priority", "7"), ("delay", "1h"), ("payload", '{"a": 1}')):
            await form.get_by_label(label, exact=True).fill(text)
        await at.press("Enqueue")
        await at.page.get_by_role("heading", name="Delayed").wait_for()
        queued = (await at.queue.find("from/the browser")).queued

    assert queued is not None
    assert (queued.priority, queued.not_before is not None) == (7, True)
    assert at.complaints == []


async def test_starts_are_paused_limited_and_resumed(url: str, script: bool) -> None:
    async with at_console(url, java_script_enabled=script) as at:
        await at.go()
        await at.press("Pause starts")
        await at.page.get_by_label("concurrency").fill("7")
        await at.page.get_by_label("starts a second").fill("2.5")
        await at.press("Store")
        await at.reads("limits stored")
        first = await at.queue.configuration()
        await at.press("Resume starts")
        await at.reads("resumed")
        second = await at.queue.configuration()

    assert (first.paused, first.concurrency, first.starts_per_second) == (True, 7, 2.5)
    assert (second.paused, second.concurrency) == (False, 7)
    assert at.complaints == []


async def test_selected_dead_letters_are_redriven_and_dropped(url: str, script: bool) -> None:
    async with at_console(url, java_script_enabled=script) as at:
        await at.dead("a", "b", "c")
        await select(at, "dead-lettered", "a")
        await at.press("Re-drive")
        await at.reads("1 key re-driven")
        await select(at, "dead-lettered", "b")
        await at.press("Drop")
        await at.reads("What is dropped is gone for good.")
        asked = await state(at)
        await at.press("Drop")
        await at.reads("1 key dropped")

        assert asked == (1, 0, 0, 2)
        assert await state(at) == (1, 0, 0, 1)
    assert at.complaints == []


async def test_a_drop_that_is_thought_better_of_is_not_done(url: str) -> None:
    async with at_console(url) as at:
        await at.dead("a")
        await at.go("/keys/dead-lettered")
        await at.page.get_by_label("Select all on this page").check()
        await at.reads("With the 1 selected:")
        await at.press("Drop")
        await at.page.get_by_role("link", name="Leave it").click()
        await at.page.get_by_role("link", name="a", exact=True).wait_for()

        assert await state(at) == (0, 0, 0, 1)


async def test_a_key_in_progress_is_released_and_a_delayed_one_is_run_now(url: str, script: bool) -> None:
    async with at_console(url, java_script_enabled=script) as at:
        await at.queue.queue("held")
        await at.queue.lease(LeaseRequest(1, 100))
        await at.queue.queue("later", Options(not_before=datetime.now(UTC) + timedelta(hours=1)))
        await select(at, "delayed", "later")
        await at.press("Run now")
        await at.reads("1 key made eligible")
        await select(at, "in-progress", "held")
        await at.press("Release")
        await at.press("Release")
        await at.reads("1 key released")

        assert await state(at) == (2, 0, 0, 0)
    assert at.complaints == []


async def test_one_key_is_redriven_and_dropped_from_its_own_page(url: str) -> None:
    async with at_console(url) as at:
        await at.dead("a")
        await at.go("/keys/dead-lettered")
        await at.page.get_by_role("link", name="a", exact=True).click()
        await at.press("Re-drive")
        await at.page.get_by_role("heading", name="Eligible").wait_for()
        redriven = await state(at)
        await at.press("Drop")
        await at.press("Drop")
        await at.reads("This key is nowhere")

        assert (redriven, await state(at)) == ((1, 0, 0, 0), (0, 0, 0, 0))


async def test_everything_that_matches_is_counted_and_then_redriven(url: str, script: bool) -> None:
    async with at_console(url, java_script_enabled=script) as at:
        await at.dead("other", *[f"key-{number}" for number in range(12)])
        await at.go("/keys/dead-lettered?prefix=key-")
        await at.reads("Everything that matches this filter")
        await at.press("Count them first (dry run)")
        if not script:  # it counts meanwhile; nothing brings the page up to date
            await at.page.reload()
        counted = await state(at)
        await at.press("Re-drive 12 keys")

        await until(lambda: _is(at, (12, 0, 0, 1)))
    assert counted == (0, 0, 0, 13)
    assert at.complaints == []


async def test_a_sweep_at_a_rate_is_stopped(url: str) -> None:
    async with at_console(url) as at:
        await at.dead(*[f"key-{number}" for number in range(30)])
        await at.go("/keys/dead-lettered")
        await at.page.get_by_text("Everything that matches").click()
        await at.page.get_by_label("at most a second").fill("1")
        await at.press("Count them first (dry run)")
        await at.press("Re-drive 30 keys")
        await at.press("Stop")
        await at.page.locator("h1").get_by_text("stopped").wait_for()

        assert (await at.queue.counts()).dead_lettered > 0
    assert at.complaints == []


async def test_of_two_operators_at_one_key_one_redrives_it_and_the_other_reads_that_it_is_gone(url: str) -> None:
    async with at_console(url) as at:
        await at.dead("a")
        other = await (await at.browser.new_context()).new_page()
        for page in (at.page, other):
            await page.goto(f"{at.base}{at.path}/keys/dead-lettered")
            await page.get_by_label("Select a", exact=True).check()
        for page in (at.page, other):
            await page.get_by_role("button", name="Re-drive", exact=True).click()
        await other.get_by_text("it is not dead-lettered any more").wait_for()

        assert await state(at) == (1, 0, 0, 0)


@pytest.mark.parametrize("width", [1280, 390])
async def test_the_keyboard_alone_redrives_a_key(url: str, width: int) -> None:
    async with at_console(url, viewport={"width": width, "height": 800}) as at:
        await at.dead("a")
        await at.go("/keys/dead-lettered")
        await at.page.keyboard.press("Tab")
        assert await _focused(at) == "Skip to the content"
        await at.page.keyboard.press("Enter")
        for key, name in (("Space", "Select a"), ("Enter", "Re-drive")):
            await _tab_to(at, name)
            await at.page.keyboard.press(key)
        await at.reads("1 key re-driven")

        assert await state(at) == (1, 0, 0, 0)


async def _is(at: At, wanted: tuple[int, int, int, int]) -> bool:
    return await state(at) == wanted


async def _focused(at: At) -> str:
    name = "(({ariaLabel, innerText, name}) => ariaLabel || innerText || name)(document.activeElement)"
    return str(await at.page.evaluate(name))


async def _tab_to(at: At, name: str) -> None:
    """Each stop on the way has to be seen."""
    for _ in range(30):
        await at.page.keyboard.press("Tab")
        assert await at.page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        if await _focused(at) == name:
            return
    raise AssertionError(f"Tab does not lead to {name}")

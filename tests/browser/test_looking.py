"""What a real Chromium makes of the pages: hostile content, axe-core's rules, narrow screens, the content policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from axe_playwright_python.async_playwright import Axe

from tests.browser.chromium import At, at_console
from tests.fakes.redis_server import RedisServer
from tests.support.redis import fresh_name
from workqueue import Options
from workqueue.optional import LeaseRequest

HOSTILE = "<img src=x onerror=alert(1)>\"'</script><script>alert(2)</script>\u202e" + "x" * 900
CONTROLS = "\x00\x01\x1b[31m"  # no key may have them
PLACES = ("queued", "delayed", "in-progress", "twins", "dead-lettered", "unreadable")


async def full(at: At) -> list[str]:
    """Keys in every place, and the addresses of pages of each kind."""
    await at.queue.queue_many([("held", Options()), ("later", _in_an_hour()), ("a" * 300, Options())])
    await at.queue.queue("held", Options(priority=9, payload=b'{"spec": [1, {"a": null}]}'))
    await at.queue.lease(LeaseRequest(1, 100))
    await at.queue.queue("held")
    await at.dead("a", "b", error="HTTP 503: no answer\n  at line 2")
    places = [f"/keys/{place}" for place in PLACES]
    return ["", *places, "/keys/dead-lettered?prefix=zz", "/key?key=held", "/key?key=a", "/sweeps"]


def _in_an_hour() -> Options:
    return Options(not_before=datetime.now(UTC) + timedelta(hours=1))


async def faults(at: At) -> list[str]:
    """What axe-core finds wrong with the page as it is now."""
    answer = (await Axe().run(at.page)).response
    assert len(answer["passes"]) > 10
    return [f"{at.page.url}: {each['id']} {each['nodes'][0]['html']}" for each in answer["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong_with_any_page_full_or_empty(url: str, scheme: str) -> None:
    found: list[str] = []
    async with at_console(url, color_scheme=scheme) as at:
        for rest in ("", *(f"/keys/{place}" for place in PLACES), "/sweeps"):
            await at.go(rest)
            found += await faults(at)
        for rest in await full(at):
            await at.go(rest)
            found += await faults(at)

    assert found == []
    assert at.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong_with_what_asks_and_what_refuses(url: str, scheme: str) -> None:
    found: list[str] = []
    async with at_console(url, color_scheme=scheme) as at:
        await at.dead("a", "b")
        for press, then in (("Drop", "Drop"), ("Count them first (dry run)", "Re-drive 2 keys")):
            await at.go("/keys/dead-lettered")
            await at.page.get_by_label("Select all on this page").check()
            await at.page.get_by_text("Everything that matches").click()
            await at.press(press)
            await at.page.get_by_role("button", name=then).wait_for()
            found += await faults(at)
        for rest in ("/keys/attic", "/key?key=nowhere", "/sweeps/77"):
            await at.go(rest)
            found += await faults(at)

    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong_with_the_login(url: str, scheme: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("sesame\n")
    async with at_console(url, "--accept-tokens", str(tmp_path / "tokens"), color_scheme=scheme) as at:
        await at.go()
        found = await faults(at)
        await at.page.get_by_label("bearer token").fill("wrong")
        await at.press("Log in")
        await at.page.get_by_role("alert").wait_for()
        found += await faults(at)

    assert found == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_wrong_while_the_store_is_down(scheme: str) -> None:
    with RedisServer() as server:
        async with at_console(server.url(fresh_name()), color_scheme=scheme) as at:
            await at.go()
            server.kill()
            await at.reads("What is shown is as it was at")
            found = await faults(at)
            await at.go()
            await at.page.get_by_role("heading", name="The store does not answer").wait_for()
            found += await faults(at)

    assert found == []


async def test_hostile_keys_payloads_and_errors_do_nothing(url: str) -> None:
    dialogs: list[str] = []
    async with at_console(url) as at:
        at.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
        await at.dead(HOSTILE, error=HOSTILE + CONTROLS, payload=HOSTILE.encode())
        for rest in ("", "/keys/dead-lettered", f"/keys/dead-lettered?prefix={quote(HOSTILE)}"):
            await at.go(rest)
        await at.page.locator("td.key a").click()
        await at.page.get_by_label("Payload").wait_for()
        text = await at.page.locator("main").inner_text()

        assert await at.page.locator("img, main script").count() == 0
        assert "\\u202e" in text
        assert not {"\u202e", *CONTROLS[:3]} & set(text)
        await at.press("Re-drive")
        await at.reads("1 key re-driven")
        assert (await at.queue.find(HOSTILE)).queued is not None
    assert (dialogs, at.complaints) == ([], [])


async def test_the_policy_would_stop_a_script_a_style_and_a_picture_of_elsewhere(url: str) -> None:
    planted = """() => {
        const script = document.createElement("script");
        script.textContent = "window.ran = true";
        const image = new Image();
        image.src = "http://elsewhere.invalid/seen.png";
        document.body.setAttribute("style", "color: red");
        document.body.append(script, image);
        document.body.innerHTML += '<i style="color: red" onclick="window.ran = true">i</i>';
        return window.ran ?? false;
    }"""
    async with at_console(url) as at:
        await at.go()

        assert await at.page.evaluate(planted) is False
        await at.page.locator("i").click()
        assert await at.page.evaluate("window.ran ?? false") is False
    assert len([text for text in at.complaints if "Content Security Policy" in text]) >= 3


@pytest.mark.parametrize("width", [320, 390])
async def test_on_a_phone_no_page_is_wider_than_the_screen(url: str, width: int) -> None:
    nobody = "http://127.0.0.1:9"  # its line says why it is not known
    async with at_console(url, "--dispatcher", nobody, viewport={"width": width, "height": 800}) as at:
        pages = await full(at)
        await at.go()
        await at.page.get_by_role("cell", name="Cannot connect").wait_for()
        await at.dead(HOSTILE, error="e" * 2000)
        wide = []
        for rest in (*pages, f"/key?key={quote(HOSTILE)}", f"/key?key={'y' * 900}"):
            await at.go(rest)
            if await at.page.evaluate("document.documentElement.scrollWidth") > width:
                wide.append(rest)

    assert wide == []


async def test_pages_are_turned_and_narrowed_without_losing_a_key(url: str, script: bool) -> None:
    async with at_console(url, java_script_enabled=script) as at:
        await at.queue.queue_many([(f"key-{number:03}", Options(priority=number % 2)) for number in range(230)])
        await at.go("/keys/queued")
        seen = await at.page.locator("td.key a").all_inner_texts()
        for _ in range(2):
            await at.page.get_by_role("link", name="Next page").click()
            await at.page.get_by_role("link", name="First page").wait_for()
            seen += await at.page.locator("td.key a").all_inner_texts()
        await at.page.get_by_label("prefix").fill("key-11")
        await at.press("Filter")
        narrowed = await at.page.locator("td.key a").all_inner_texts()

    assert (len(seen), len(set(seen)), seen[0]) == (230, 230, "key-001")
    assert sorted(narrowed) == [f"key-11{number}" for number in range(10)]

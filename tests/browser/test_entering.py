"""Who comes in, in a real Chromium: a session by a token, links and forms of other sites, frames."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.browser.chromium import At, at_console
from workqueue.web.server import http_server


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """Of a console that wants a token."""
    for name in ("operate", "view"):
        (tmp_path / name).write_text(f"{name}-token\n")
    return ["--accept-tokens", str(tmp_path / "operate"), "--viewer-tokens", str(tmp_path / "view")]


async def log_in(at: At, token: str) -> None:
    await at.page.get_by_label("bearer token").fill(token)
    await at.press("Log in")
    await at.page.get_by_role("button", name="Log out").wait_for()


async def test_a_token_makes_a_session_that_leads_to_the_page_that_was_asked_for(
    url: str, flags: list[str], script: bool
) -> None:
    async with at_console(url, *flags, java_script_enabled=script) as at:
        await at.go("/keys/delayed?prefix=a")
        await log_in(at, "operate-token")
        shown = at.page.url
        [cookie] = await at.context.cookies()
        await at.press("Log out")
        await at.go()
        await at.page.get_by_label("bearer token").wait_for()

    assert shown == f"{at.base}{at.path}/keys/delayed?prefix=a"
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert at.complaints == []


async def test_a_viewer_finds_nothing_to_act_with(url: str, flags: list[str]) -> None:
    async with at_console(url, *flags) as at:
        await at.dead("a")
        await at.go("/keys/dead-lettered")
        await log_in(at, "view-token")
        buttons = [await at.page.get_by_role("button").all_inner_texts()]
        await at.go()
        buttons.append(await at.page.get_by_role("button").all_inner_texts())

    assert buttons == [["Log out", "Filter"], ["Log out"]]


async def test_a_wrong_token_is_refused_in_words(url: str, flags: list[str]) -> None:
    async with at_console(url, *flags) as at:
        await at.go()
        await at.page.get_by_label("bearer token").fill("wrong")
        await at.press("Log in")
        await at.page.get_by_role("alert").wait_for()

        assert await at.page.get_by_label("bearer token").count() == 1


@asynccontextmanager
async def other_site(at: At) -> AsyncIterator[str]:
    """A page of another site (localhost is none of 127.0.0.1) that links to the console, posts to it, and frames it."""
    own = escape(at.base + at.path)

    async def page(request: Request) -> HTMLResponse:
        form = f'<form method="post" action="{own}/configure"><button name="change" value="pause">Win</button></form>'
        return HTMLResponse(f'<a href="{own}">A colleague\'s link</a>{form}<iframe src="{own}"></iframe>')

    async with http_server(Starlette(routes=[Route("/", page)]), "127.0.0.1", 0) as port:
        yield f"http://localhost:{port}/"


async def test_a_link_of_another_site_finds_the_session_and_its_forms_and_frames_do_nothing(
    url: str, flags: list[str]
) -> None:
    async with at_console(url, *flags) as at, other_site(at) as site:
        await at.go()
        await log_in(at, "operate-token")
        await at.page.goto(site)
        framed = [await frame.content() for frame in at.page.frames[1:]]
        await at.press("Win")
        await at.page.wait_for_url(f"{at.base}/**")
        refused = await at.page.content()
        await at.page.goto(site)
        await at.page.get_by_role("link").click()
        await at.page.get_by_role("button", name="Pause starts").wait_for()

        assert not (await at.queue.configuration()).paused
    assert "log in first" in refused
    assert "Pause starts" not in "".join(framed)


async def test_a_form_of_another_site_does_nothing_where_no_login_is(url: str) -> None:
    async with at_console(url) as at, other_site(at) as site:
        await at.go()
        await at.page.goto(site)
        await at.press("Win")
        await at.reads("another page sent this form")

        assert not (await at.queue.configuration()).paused


async def test_a_token_that_was_taken_off_the_list_leads_an_open_page_to_the_login(
    url: str, flags: list[str], tmp_path: Path
) -> None:
    async with at_console(url, *flags) as at:
        await at.go()
        await log_in(at, "operate-token")
        (tmp_path / "operate").write_text("another-token\n")
        await at.page.get_by_label("bearer token").wait_for()

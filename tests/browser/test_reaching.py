"""Ways to a console, in a real Chromium: a login at an issuer, a proxy with TLS and a path, and one that only shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from yarl import URL

from tests.browser.chromium import At, at_console
from tests.support.login_issuer import LoginIssuer
from tests.support.tls import Authority
from workqueue import open_queue
from workqueue.access.security import ServerTLS
from workqueue.web.server import http_server


@asynccontextmanager
async def at_console_of_issuer(url: str, folder: Path, issuer: LoginIssuer) -> AsyncIterator[At]:
    """A console where `issuer` says who comes in, and ada may act."""
    (folder / "secret").write_text("s3cret\n")
    client = ("--oidc-client-id", "console", "--oidc-client-secret", str(folder / "secret"))
    whose = ("--oidc-issuer", issuer.url, "--oidc-audience", "console", "--oidc-operators", "ada@example.com")
    async with at_console(url, *whose, *client) as at:
        yield at


async def log_in(at: At) -> None:
    """By the issuer, from the page of the login."""
    await at.page.get_by_role("link", name="Log in with your organisation").click()
    await at.press("It is me")
    await at.page.get_by_role("button", name="Log out").wait_for()


async def test_a_login_at_the_issuer_leads_back_to_the_page_that_was_asked_for(url: str, tmp_path: Path) -> None:
    async with LoginIssuer(asks=True).with_login() as issuer, at_console_of_issuer(url, tmp_path, issuer) as at:
        await at.dead("a")
        await at.go("/keys/dead-lettered?prefix=a")
        await log_in(at)
        back = at.page.url
        [cookie] = [each for each in await at.context.cookies() if each["name"] == "workqueue-console"]
        await at.page.get_by_label("Select a", exact=True).check()
        await at.press("Re-drive")
        await at.reads("1 key re-driven")

    assert back == f"{at.base}{at.path}/keys/dead-lettered?prefix=a"
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert [each for each in at.complaints if "asked http://localhost" not in each] == []


async def test_whom_the_issuer_names_and_nobody_made_an_operator_looks_only(url: str, tmp_path: Path) -> None:
    async with LoginIssuer(asks=True).with_login() as issuer, at_console_of_issuer(url, tmp_path, issuer) as at:
        issuer.person["email"] = "eve@example.com"
        await at.go()
        await log_in(at)

        assert "eve@example.com · looking only" in await at.page.locator("header").inner_text()
        assert await at.page.get_by_role("button").all_inner_texts() == ["Log out"]


@asynccontextmanager
async def behind_proxy(at: At, folder: Path, prefix: str) -> AsyncIterator[None]:
    """Reach the console of `at` through a proxy that does TLS and has it below `prefix`, which it takes off."""

    async def passed_on(request: Request) -> Response:
        own = {"x-forwarded-proto": "https", "x-forwarded-host": request.url.netloc, "x-forwarded-prefix": prefix}
        headers = {name: value for name, value in request.headers.items() if name not in ("host", "content-length")}
        where = URL(f"{inside}{request.url.path.removeprefix(prefix)}?{request.url.query}", encoded=True)
        async with session.request(
            request.method, where, headers=headers | own, data=await request.body(), allow_redirects=False
        ) as answer:
            passed = Response(await answer.read(), answer.status)
            gone = ("content-length", "date", "connection")
            passed.raw_headers += [(n.lower(), v) for n, v in answer.raw_headers if n.lower().decode() not in gone]
            return passed

    inside, pair = at.base, Authority(folder).issue("127.0.0.1")
    app = Starlette(routes=[Route(prefix + "{path:path}", passed_on, methods=["GET", "POST"])])
    tls = ServerTLS(pair.certificate, pair.key)
    async with aiohttp.ClientSession() as session, http_server(app, "127.0.0.1", 0, tls=tls) as port:
        at.base = f"https://127.0.0.1:{port}{prefix}"
        yield


async def test_behind_a_proxy_with_tls_and_a_path_everything_stays_below_it_and_the_cookie_is_secure(
    url: str, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text("sesame\n")
    flags = ("--accept-tokens", str(tmp_path / "tokens"), "--trusted-proxies", "127.0.0.1")
    async with at_console(url, *flags, ignore_https_errors=True) as at, behind_proxy(at, tmp_path, "/ops/queues"):
        await at.go("/keys/queued")
        await at.page.get_by_label("bearer token").fill("sesame")
        await at.press("Log in")
        await at.page.get_by_role("link", name="Overview").click()
        await at.press("Pause starts")
        await at.reads("paused")
        [cookie] = await at.context.cookies()

        assert (await at.queue.configuration()).paused
        assert (cookie["secure"], cookie["path"]) == (True, "/ops/queues")
        assert at.complaints == []  # there is one of each address that is not below the path


async def test_a_console_that_only_shows_has_nothing_to_act_with_and_refuses_it(url: str) -> None:
    forge = """async (path) => (await fetch(path, {
        method: "POST", body: new URLSearchParams({change: "pause"}),
    })).status"""
    async with open_queue(url) as queue:
        await queue.queue("a")  # who only looks makes no file
    async with at_console(url, "--read-only") as at:
        buttons = []
        for rest in ("", "/keys/queued", "/key?key=a", "/sweeps"):
            await at.go(rest)
            buttons += await at.page.get_by_role("button").all_inner_texts()

        assert buttons == ["Filter"]
        assert await at.page.evaluate(forge, f"{at.base}{at.path}/configure") == 403
        assert not (await at.queue.configuration()).paused

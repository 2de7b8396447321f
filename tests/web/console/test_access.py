"""Who comes into the console and what they may do there: tokens, an issuer, forged forms, proxies."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.types import Message

from tests.support.login_issuer import LoginIssuer
from tests.web.console.browsing import Browser, browsing, console_at, stored
from workqueue.access.oidc import OIDCTokens
from workqueue.access.tokens import ListedTokens, StaticTokens
from workqueue.web.console import Console, ConsoleSettings, OIDCAdmission, OIDCLogin, TokenAdmission

TOKENS = TokenAdmission(StaticTokens(["operate"]), StaticTokens(["view"]))


async def logged_in(browser: Browser, token: str, then: str = "/q/default") -> None:
    page = await browser.get("/login")
    assert (await browser.submit(page, "/login", token=token, next=then)).status == 200


async def test_who_has_not_logged_in_is_led_to_the_login_and_back(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue, admission=TOKENS) as browser:
        asked = await browser.get("/q/default/keys/queued?prefix=a/")

        shown = await browser.submit(asked, "/login", token="view", next="/q/default/keys/queued?prefix=a/")

        assert asked.path.startswith("/login?next=")
        assert "default" not in asked.said
        assert (shown.status, shown.path) == (200, "/q/default/keys/queued?prefix=a/")


async def test_a_wrong_token_opens_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with stored(tmp_path) as queue, console_at(queue, admission=TOKENS) as browser:
        refused = await browser.submit(await browser.get("/login"), "/login", token="wrong")

        assert refused.status == 401
        assert "not one of those" in refused.said
        assert (await browser.get("/q/default")).path.startswith("/login")
        assert "wrong" not in caplog.text


async def test_a_viewer_looks_and_does_not_act(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue, admission=TOKENS) as browser:
        await queue.queue("a")
        await logged_in(browser, "view")

        page = await browser.get("/q/default/keys/queued")
        refused = await browser.submit(page, "/q/default/act", verb="drop", place="queued", at="a", sure="yes")

        assert "looking only" in page.said
        assert "checkbox" not in page.text
        assert refused.status == 403
        assert (await queue.find("a")).queued is not None


async def test_read_only_holds_for_operators_too(tmp_path: Path) -> None:
    settings = ConsoleSettings(read_only=True)
    async with stored(tmp_path) as queue, console_at(queue, settings, TOKENS) as browser:
        await logged_in(browser, "operate")

        page = await browser.get("/q/default")
        refused = await browser.submit(page, "/q/default/configure", change="pause")

        assert "Pause starts" not in page.said
        assert refused.status == 403
        assert not (await queue.configuration()).paused


async def test_the_log_names_a_token_without_showing_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "workqueue.web.console")
    async with stored(tmp_path) as queue, console_at(queue, admission=TOKENS) as browser:
        await logged_in(browser, "operate")

        await browser.submit(await browser.get("/q/default"), "/q/default/enqueue", key="a")

    name = f"token {hashlib.sha256(b'operate').hexdigest()[:8]}"
    assert f"{name} logged in as operator" in caplog.text
    assert f"enqueue a by {name}" in caplog.text
    assert "operate " not in caplog.text


async def test_a_token_that_is_taken_off_the_list_ends_its_session(tmp_path: Path) -> None:
    listed = tmp_path / "tokens"
    listed.write_text("first\nsecond\n")
    admission = TokenAdmission(ListedTokens(listed))
    async with stored(tmp_path) as queue, console_at(queue, admission=admission) as browser:
        await logged_in(browser, "first")
        before = await browser.get("/q/default")

        listed.write_text("second\n")

        assert before.path == "/q/default"
        assert (await browser.get("/q/default")).path.startswith("/login")


async def test_who_logs_out_is_out(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue, admission=TOKENS) as browser:
        await logged_in(browser, "operate")

        await browser.submit(await browser.get("/q/default"), "/logout")

        assert (await browser.get("/q/default")).path.startswith("/login")


async def test_a_login_changes_the_cookie_and_protects_it(tmp_path: Path) -> None:
    settings = ConsoleSettings(trusted_proxies=["127.0.0.1"])
    async with (
        stored(tmp_path) as queue,
        console_at(queue, settings, TOKENS) as browser,
        browsing(browser.url) as other,
    ):
        plain = await browser.get("/login")
        secure = await other.get("/login", **{"x-forwarded-proto": "https"})

        assert "HttpOnly" in plain.headers["Set-Cookie"]
        assert "SameSite=lax" in plain.headers["Set-Cookie"]
        assert "Secure" not in plain.headers["Set-Cookie"]
        assert "Secure" in secure.headers["Set-Cookie"]
        before = {each.value for each in browser.session.cookie_jar}
        await logged_in(browser, "operate")
        assert before.isdisjoint({each.value for each in browser.session.cookie_jar})


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", ""])
async def test_a_form_of_another_page_is_refused(tmp_path: Path, origin: str) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        page = await browser.get("/q/default")

        fields = {"form_token": page.form_token, "change": "pause"}
        refused = await browser.post("/q/default/configure", fields, **({"origin": origin} if origin else {}))

        assert refused.status == 403
        assert not (await queue.configuration()).paused


async def test_a_form_that_comes_without_a_cookie_is_given_none_in_place_of_that_of_a_session(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        page = await browser.post("/q/default/configure", {"change": "pause"}, origin="https://elsewhere.example")

        assert page.status == 403
        assert "set-cookie" not in page.headers


async def test_a_form_without_the_token_of_its_browser_is_refused(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser, browsing(browser.url) as other:
        mine, theirs = await browser.get("/q/default"), await other.get("/q/default")

        for token in ("", theirs.form_token):
            fields = {"form_token": token, "change": "pause"}
            assert (await browser.post("/q/default/configure", fields, origin=browser.origin)).status == 403
        assert mine.form_token != theirs.form_token
        assert not (await queue.configuration()).paused


async def test_a_program_acts_with_its_token_in_a_header_and_no_form(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue, admission=TOKENS) as browser:
        answers = [
            (await browser.post("/q/default/configure", {"change": "pause"}, authorization=f"Bearer {token}")).status
            for token in ("wrong", "view", "operate")
        ]

        assert answers == [401, 403, 200]
        assert (await queue.configuration()).paused


async def test_a_header_frees_nobody_from_the_form_where_no_token_is_asked_for(tmp_path: Path) -> None:
    async with stored(tmp_path) as queue, console_at(queue) as browser:
        refused = await browser.post("/q/default/configure", {"change": "pause"}, authorization="Bearer x")

        assert refused.status == 403


@pytest.mark.parametrize("then", ["//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example"])
async def test_a_login_leads_nowhere_else(tmp_path: Path, then: str) -> None:
    async with stored(tmp_path) as queue, console_at(queue, admission=TOKENS) as browser:
        page = await browser.submit(await browser.get("/login"), "/login", token="view", next=then)

        assert (page.status, page.path) == (200, "/q/default")


async def test_a_name_that_is_pointed_at_this_machine_is_not_answered(tmp_path: Path) -> None:
    settings = ConsoleSettings(hosts=["localhost", "127.0.0.1", "::1"])
    async with stored(tmp_path) as queue, console_at(queue, settings) as browser:
        statuses = [(await browser.get("/q/default", host=host)).status for host in ("evil.example", "localhost:1")]

        assert statuses == [421, 200]


async def test_links_are_as_a_proxy_has_them_only_where_it_is_trusted(tmp_path: Path) -> None:
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-host": "ops.example", "x-forwarded-prefix": "/queues"}
    for trusted, root in ((["127.0.0.1"], "/queues"), (["10.0.0.7"], "")):
        async with (
            stored(tmp_path) as queue,
            console_at(queue, ConsoleSettings(trusted_proxies=trusted)) as browser,
        ):
            page = await browser.get("/q/default", **forwarded)

            assert f'href="{root}/q/default/keys/queued"' in page.text


@pytest.mark.parametrize("prefix", ["", "/ops/queues"])
async def test_behind_a_public_url_forms_work_whether_the_proxy_keeps_its_prefix_or_not(
    tmp_path: Path, prefix: str
) -> None:
    settings = ConsoleSettings(public_url="https://ops.example/ops/queues")
    async with stored(tmp_path) as queue, console_at(queue, settings) as browser:
        page = await browser.get(f"{prefix}/q/default")
        cookie = page.headers["Set-Cookie"].partition(";")[0]

        fields = {"form_token": page.form_token, "change": "pause"}
        await browser.post(f"{prefix}/q/default/configure", fields, origin="https://ops.example", cookie=cookie)

        assert 'href="/ops/queues/q/default/keys/queued"' in page.text
        assert "Path=/ops/queues" in page.headers["Set-Cookie"]
        assert (await queue.configuration()).paused


async def test_a_form_that_does_not_end_is_refused_wherever_the_console_is_mounted(tmp_path: Path) -> None:
    read = 0

    async def endless() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"a" * 65536, "more_body": True}

    async def seen(message: Message) -> None:
        answers.append(message)

    answers: list[Message] = []
    async with stored(tmp_path) as queue, Console({"default": queue}) as console:
        scope = {"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": []}

        await console.app(scope, endless, seen)

    assert (answers[0]["status"], read) == (400, 17)


# An issuer


@asynccontextmanager
async def console_of_issuer(folder: Path, issuer: LoginIssuer, secret: str = "s3cret") -> AsyncIterator[Browser]:
    admission = OIDCAdmission(OIDCTokens(issuer.url, "console"), ["ada@example.com"])
    login = OIDCLogin(issuer.url, "console", admission, secret)
    async with stored(folder) as queue, console_at(queue, admission=admission, login=login) as browser:
        yield browser


async def test_a_login_at_the_issuer_leads_back_to_the_page_that_was_asked_for(tmp_path: Path) -> None:
    async with LoginIssuer().with_login() as issuer, console_of_issuer(tmp_path, issuer) as browser:
        page = await browser.get("/login/issuer?next=/q/default/keys/queued")

        assert (page.status, page.path) == (200, "/q/default/keys/queued")
        assert "ada@example.com" in page.said
        assert issuer.asked["code_challenge_method"] == "S256"


@pytest.mark.parametrize(
    ("person", "acts"),
    [
        ({"email": "ada@example.com", "email_verified": True}, True),
        ({"email": "ada@example.com", "email_verified": False}, False),
        ({"email": "eve@example.com", "email_verified": True}, False),
    ],
)
async def test_operators_are_those_whose_address_is_verified(
    tmp_path: Path, person: dict[str, object], acts: bool
) -> None:
    async with LoginIssuer().with_login() as issuer, console_of_issuer(tmp_path, issuer) as browser:
        issuer.person = {"sub": "42", **person}

        page = await browser.get("/login/issuer")

        assert ("Pause starts" in page.said) is acts


@pytest.mark.parametrize("wrong", [{"nonce": "of another login"}, {"aud": "another client"}, {"exp": 1}])
async def test_a_token_that_is_not_of_this_login_opens_nothing(tmp_path: Path, wrong: dict[str, object]) -> None:
    async with LoginIssuer().with_login() as issuer, console_of_issuer(tmp_path, issuer) as browser:
        issuer.person |= wrong

        page = await browser.get("/login/issuer")

        assert page.status == 401
        assert (await browser.get("/q/default")).path.startswith("/login")


async def test_a_login_that_another_browser_began_is_refused(tmp_path: Path) -> None:
    async with (
        LoginIssuer().with_login() as issuer,
        console_of_issuer(tmp_path, issuer) as victim,
        browsing(victim.url) as attacker,
    ):
        async with attacker.session.get(f"{attacker.url}/login/issuer", allow_redirects=False) as away:
            state = parse_qs(urlsplit(away.headers["location"]).query)["state"][0]
        await victim.get("/login")

        page = await victim.get(f"/login/callback?code=c0de&state={state}")

        assert page.status == 401
        assert "began no such login" in page.said


async def test_a_wrong_secret_or_an_issuer_that_is_down_is_said(tmp_path: Path) -> None:
    async with LoginIssuer().with_login() as issuer, console_of_issuer(tmp_path, issuer, "wrong") as browser:
        refused = await browser.get("/login/issuer")
        issuer.down = True
        down = await browser.get("/login/issuer")

        assert (refused.status, down.status) == (401, 503)
        assert "does not vouch" in refused.said
        assert "cannot be asked" in down.said

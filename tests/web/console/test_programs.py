"""`workqueue console` and `dispatcher serve --console` as processes: how they are reached, and what they know."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.programs import serving, workqueue
from tests.support.sqlite import sqlite_url
from tests.web.console.browsing import Browser, Page, browsing
from workqueue import open_queue

ANSWERS = """
async def reconcile(key, attempt):
    raise ValueError("it broke")
"""


async def until(browser: Browser, path: str, text: str) -> Page:
    """The page once it says `text`."""
    while text not in (page := await browser.get(path)).said:
        pass
    return page


async def test_the_command_shows_every_queue_that_it_is_given_and_ends_at_a_signal(tmp_path: Path) -> None:
    urls = [sqlite_url(tmp_path / "wq.db", name=name) for name in ("builds", "mail")]
    arguments = [argument for url in urls for argument in ("--queue", url)]
    with serving("workqueue.cli", "console", *arguments, "--http-port", "0") as server:
        async with (
            browsing(f"http://127.0.0.1:{server.port('the console on')}") as browser,
            open_queue(urls[1]) as mail,
        ):
            await mail.queue("a/b")
            said = [(await browser.get(f"/q/{name}")).said for name in ("builds", "mail")]
            page = await browser.submit(await browser.get("/q/mail"), "/q/mail/configure", change="pause")
            others = [(await browser.get(path)).status for path in ("/healthz", "/readyz", "/metrics")]
            paused = (await mail.configuration()).paused
        server.tell()

        assert server.ended() == 0
    assert ["eligible 0" in said[0], "eligible 1" in said[1], page.path] == [True, True, "/q/mail"]
    assert others == [200, 200, 200]
    assert paused


async def test_on_loopback_without_a_login_only_its_own_names_are_answered(tmp_path: Path) -> None:
    command = ("workqueue.cli", "console", "--queue", sqlite_url(tmp_path / "wq.db"), "--http-port", "0")
    with serving(*command) as server:
        async with browsing(f"http://127.0.0.1:{server.port('the console on')}") as browser:
            assert (await browser.get("/q/default", host="elsewhere.example")).status == 421


async def test_tokens_guard_the_metrics_too_and_open_the_console_by_a_form(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("operate\n")
    (tmp_path / "viewers").write_text("view\n")
    tokens = ("--accept-tokens", str(tmp_path / "tokens"), "--viewer-tokens", str(tmp_path / "viewers"))
    queue = ("--queue", sqlite_url(tmp_path / "wq.db"))
    with serving("workqueue.cli", "console", *queue, *tokens, "--http-port", "0") as server:
        async with browsing(f"http://127.0.0.1:{server.port('the console on')}") as browser:
            closed = [(await browser.get(path)).status for path in ("/metrics", "/healthz")]
            page = await browser.submit(await browser.get("/"), "/login", token="view")

            assert closed == [401, 200]
            assert "looking only" in page.said


async def test_a_read_only_console_does_with_rights_to_read_a_file(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "wq.db")
    async with open_queue(url) as queue:
        await queue.queue("a")
    with serving("workqueue.cli", "console", "--queue", url, "--read-only", "--http-port", "0") as server:
        async with browsing(f"http://127.0.0.1:{server.port('the console on')}") as browser:
            page = await browser.get("/q/default/keys/queued")

            assert "looking only" in page.said
            assert "key=a" in page.text


async def test_a_dispatcher_serves_a_console_that_knows_its_rates(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ANSWERS)
    command = ("dispatcher.cli", "serve", "--console", "--callback", "mine:reconcile", "--max-retry", "1")
    where = ("--queue", "memory://", "--http-port", "0", "--grpc-port", "0")
    with serving(*command, *where, env={"PYTHONPATH": str(tmp_path)}, new=True) as server:
        async with browsing(f"http://127.0.0.1:{server.port('console at /console/')}") as browser:
            shown = await until(browser, "/console/", "this dispatcher 0 10")
            await browser.submit(shown, "/console/q/default/enqueue", key="a/b")
            page = await until(browser, "/console/q/default/key?key=a/b", "Dead-lettered")
            triggered = (await browser.get("/")).text

            assert "ValueError: it broke" in page.said
            assert triggered in ("ok\n", "shed: a round has just started\n")


async def test_a_dispatcher_that_is_named_is_asked_for_what_only_it_knows(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ANSWERS)
    url, env = sqlite_url(tmp_path / "wq.db"), {"PYTHONPATH": str(tmp_path)}
    run = ("dispatcher.cli", "run", "--queue", url, "--callback", "mine:reconcile", "--http-port", "0")
    with serving(*run, env=env, new=True) as dispatcher:
        address = f"http://127.0.0.1:{dispatcher.port('trigger, probes and metrics on')}"
        command = ("workqueue.cli", "console", "--queue", url, "--dispatcher", address, "--http-port", "0")
        with serving(*command) as server:
            async with browsing(f"http://127.0.0.1:{server.port('the console on')}") as browser:
                page = await until(browser, "/q/default", f"{address} 0 10")

                assert "starts, outcomes unknown" not in page.said


async def test_a_dispatcher_behind_a_token_is_asked_with_the_token_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(ANSWERS)
    (tmp_path / "token").write_text("sesame\n")
    url, env = sqlite_url(tmp_path / "wq.db"), {"PYTHONPATH": str(tmp_path)}
    guarded = ("--accept-tokens", str(tmp_path / "token"))
    run = ("dispatcher.cli", "run", "--queue", url, "--callback", "mine:reconcile", "--http-port", "0", *guarded)
    with serving(*run, env=env, new=True) as dispatcher:
        address = f"http://127.0.0.1:{dispatcher.port('trigger, probes and metrics on')}"
        command = ("workqueue.cli", "console", "--queue", url, "--dispatcher", address, "--http-port", "0")
        with serving(*command) as without, serving(*command, "--token-file", str(tmp_path / "token")) as server:
            async with browsing(f"http://127.0.0.1:{without.port('the console on')}") as browser:
                await until(browser, "/q/default", "401")
            async with browsing(f"http://127.0.0.1:{server.port('the console on')}") as browser:
                await until(browser, "/q/default", f"{address} 0 10")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--queue", "memory://"), "--queue"),
        (("--trace-link", "https://traces.example"), "--trace-link"),
        (("--public-url", "ops.example"), "--public-url"),
        (("--oidc-client-id", "console"), "--oidc-client-id"),
        (("--viewer-tokens", "/nowhere"), "--viewer-tokens"),
        (("--dispatcher", "nonsense"), "--dispatcher"),
        (("--host", "0.0.0.0"), "--host"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_it(arguments: tuple[str, str], named: str, tmp_path: Path) -> None:
    ended = workqueue("console", *arguments, env={"WORKQUEUE_URL": sqlite_url(tmp_path / "wq.db")})

    assert ended.code == 2
    assert named in ended.err
    assert ended.err.count("\n") == 1

"""How the program reaches its broker: what it is shown, and through which proxy, by flags and environment."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dispatcher import ErrorEvent, Failure
from dispatcher.environment import EventFlags
from dispatcher.lifecycle import StateChange, asked_for
from tests.dispatcher.test_error_events import Sink, sink
from tests.support.tls import Authority
from workqueue.errors import InvalidSettingError
from workqueue.programs.access import CallFlags

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("open-sesame")
    return path


async def one_event_to(url: str, calls: CallFlags) -> int:
    """Send an event; returns how many were sent."""
    errors = EventFlags(events_url=url).sinks(calls.security)("my-wq")
    errors.send(ErrorEvent("a", 1, Failure("ValueError", "requeued"), datetime.now(UTC)))
    await errors.flush(timedelta(seconds=10))
    return errors.results["sent"]


def shown_to(broker: Sink) -> str | None:
    [message] = broker.messages
    return message.headers.get("authorization")


async def test_the_token_of_the_target_is_shown_to_the_broker(token: Path) -> None:
    async with sink() as broker:
        await one_event_to(broker.url, CallFlags(token_file=token))

    assert shown_to(broker) == "Bearer open-sesame"


@pytest.mark.parametrize(("insecure", "shown"), [(False, None), (True, "Bearer open-sesame")], ids=["plain", "meant"])
async def test_a_token_does_not_travel_to_another_machine_in_plaintext_unless_that_is_meant(
    insecure: bool, shown: str | None, token: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sink() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        sent = await one_event_to("http://broker.example/", CallFlags(token_file=token, insecure_token=insecure))

    assert (sent, shown_to(proxy)) == (1, shown)


async def test_what_only_fits_tls_does_not_keep_a_broker_of_plaintext_from_its_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sink() as broker:
        assert await one_event_to(broker.url, CallFlags(ca=Authority(tmp_path).file)) == 1


async def test_an_id_token_of_google_is_asked_for_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    claims = urlsafe_b64encode(b'{"exp": 4102444800}').decode().rstrip("=")

    async def identity(request: web.Request) -> web.Response:
        asked.append(request.query["audience"])
        return web.Response(text=f"a.{claims}.c")

    app = web.Application()
    app.router.add_get("/computeMetadata/v1/instance/service-accounts/default/identity", identity)
    async with sink() as broker, TestServer(app) as metadata:
        monkeypatch.setenv("GCE_METADATA_HOST", f"127.0.0.1:{metadata.port}")
        await one_event_to(broker.url, CallFlags(google_id_token=True))

    assert (asked, shown_to(broker)) == (["https://127.0.0.1"], f"Bearer a.{claims}.c")


@pytest.mark.parametrize(
    ("host", "environment", "messages"),
    [
        ("broker.example", {"HTTP_PROXY": "{proxy}"}, 1),
        ("broker.example", {"ALL_PROXY": "{proxy}"}, 1),
        ("broker.example", {"HTTP_PROXY": "{bare}"}, 1),
        ("broker.invalid", {"HTTP_PROXY": "{proxy}", "NO_PROXY": ".invalid"}, 0),
        ("broker.invalid", {"HTTPS_PROXY": "{proxy}"}, 0),
        ("localhost:9", {"HTTP_PROXY": "{proxy}"}, 0),
    ],
    ids=["http", "all", "without a scheme", "exempt", "of https only", "this machine"],
)
async def test_the_proxy_of_the_environment_is_used(
    host: str, environment: dict[str, str], messages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sink() as proxy:
        bare = proxy.url.removeprefix("http://").rstrip("/")
        for name, value in environment.items():
            monkeypatch.setenv(name, value.format(proxy=proxy.url, bare=bare))
        await one_event_to(f"http://{host}/", CallFlags())

    assert len(proxy.messages) == messages


def test_a_proxy_that_is_none_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "socks5://proxy:1080")

    with pytest.raises(InvalidSettingError, match="HTTP_PROXY"):
        EventFlags(events_url="http://broker.example/").sinks(CallFlags().security)


async def test_state_changes_go_to_the_same_broker_and_are_shown_the_same(token: Path) -> None:
    async with sink() as broker:
        flags = EventFlags(events_url=broker.url, lifecycle_events=True)
        errors = flags.sinks(CallFlags(token_file=token).security)("my-wq")
        lifecycle = asked_for(errors)
        assert lifecycle is not None
        lifecycle.changed(StateChange("a", "started", 1, datetime.now(UTC)))
        await errors.flush(timedelta(seconds=10))

    assert shown_to(broker) == "Bearer open-sesame"
    assert asked_for(EventFlags(events_url=broker.url).sinks(CallFlags().security)("my-wq")) is None


def test_state_changes_without_a_broker_are_refused_at_the_start() -> None:
    with pytest.raises(InvalidSettingError, match="--events-url"):
        EventFlags(lifecycle_events=True)

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.programs import Server, dispatcher, process, run, serving, workqueue
from workqueue.routing import POLICIES
from workqueue.rpc.wire import SERVICE

ANY_PORTS = ["--grpc-port", "0", "--http-port", "0"]


def status(port: int, path: str, token: str = "") -> int:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        ) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


@pytest.fixture
def gate() -> Iterator[socket.socket]:
    """Where a callback `until_released` reports that it runs, its port being the key."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def key_of(gate: socket.socket) -> str:
    return str(gate.getsockname()[1])


def test_one_process_takes_keys_reconciles_them_and_drains(url: str) -> None:
    with serving(
        "dispatcher.cli", "serve", "--callback", "tests.support.reconcilers:complete", *ANY_PORTS, "--queue", url
    ) as it:
        http, grpc = it.port("trigger, probes and metrics on"), it.port("listening on")

        assert workqueue("enqueue", "a", "b", "--queue", f"grpc://127.0.0.1:{grpc}").code == 0
        assert [status(http, path) for path in ("/healthz", "/readyz", "/", "/metrics")] == [200] * 4

        it.tell()
        assert it.ended() == 0
    assert run(url, "ls").out == "the queue is empty\n"


def test_a_running_callback_may_finish_when_the_process_is_told_to_stop(url: str, gate: socket.socket) -> None:
    run(url, "enqueue", key_of(gate))
    with _waiting(url) as it:
        running, _ = gate.accept()
        it.tell()
        it.logged("draining")
        running.close()

        assert it.ended() == 0
    assert run(url, "get", key_of(gate)).code == 1


@pytest.mark.parametrize("signals", [1, 2])
def test_a_callback_that_does_not_finish_hands_its_key_back_unspent(
    url: str, gate: socket.socket, signals: int
) -> None:
    run(url, "enqueue", key_of(gate))
    with _waiting(url, "--drain-timeout", "0s" if signals == 1 else "1h") as it, gate.accept()[0]:
        for _ in range(signals):
            it.tell(signal.SIGINT)
            it.logged("SIGINT")

        assert it.ended() == 0
    state = run(url, "get", key_of(gate), "--json").json
    assert (state["status"], state["attempts"]) == ("queued", 0)


def _waiting(url: str, *more: str) -> AbstractContextManager[Server]:
    callback = ["--callback", "tests.support.reconcilers:until_released"]
    return serving("dispatcher.cli", "run", *callback, "--http-port", "0", "--queue", url, *more)


def test_without_a_loop_a_round_runs_when_its_url_is_called_and_only_then(url: str) -> None:
    run(url, "enqueue", "a")
    command = ["run", "--no-loop", "--callback", "tests.support.reconcilers:complete", "--poll-period", "10ms"]
    with serving("dispatcher.cli", *command, "--http-port", "0", "--queue", url) as it:
        port = it.port("trigger, probes and metrics on")
        assert [status(port, path) for path in ("/healthz", "/readyz")] == [200, 200]
        assert run(url, "get", "a").code == 0

        assert status(port, "/") == 200
        assert run(url, "get", "a").code == 1
        it.tell()
        assert it.ended() == 0


def test_rounds_run_once_or_on_call_not_both(url: str) -> None:
    ended = dispatcher("run", "--once", "--no-loop", "--callback", "tests.support.reconcilers:complete", "--queue", url)

    assert ended.code == 2
    assert ended.err.endswith("--once and --no-loop: give one of them\n")


def test_once_runs_one_round_and_ends(url: str) -> None:
    run(url, "enqueue", "a", "b", "c")
    once = ["run", "--once", "--callback", "tests.support.reconcilers:complete", "--concurrency", "2", "--queue", url]

    ended = process("dispatcher", *once)

    assert ended.code == 0
    assert "one round: 2 completed" in ended.err
    assert run(url, "stats", "--json").json["queued"] == 1


def test_once_says_by_its_exit_code_that_the_target_is_down_and_spends_nothing(url: str) -> None:
    run(url, "enqueue", *(f"k{number}" for number in range(40)))
    once = ["run", "--once", "--target", "grpc://127.0.0.1:1", "--max-retry", "3", "--concurrency", "20"]

    codes = [process("dispatcher", *once, "--queue", url).code for _ in range(4)]

    assert codes == [75] * 4
    stats = run(url, "stats", "--json").json
    assert (stats["queued"], stats["dead_lettered"], stats["max_attempts"]) == (40, 0, 0)


def test_a_round_that_is_told_to_stop_hands_its_keys_back(url: str, gate: socket.socket) -> None:
    run(url, "enqueue", key_of(gate))
    with _waiting(url, "--once", "--drain-timeout", "0s") as it, gate.accept()[0]:
        it.tell()

        assert it.ended() == 0
    assert run(url, "get", key_of(gate), "--json").json["attempts"] == 0


def test_the_go_dispatchers_variables_are_enough(tmp_path: Path) -> None:
    env = {
        "PORT": "0",
        "WORKQUEUE_MODE": "inmem",
        "WORKQUEUE_CONCURRENCY": "3",
        "WORKQUEUE_BATCH_SIZE": "2",
        "WORKQUEUE_MAX_RETRY": "5",
        "WORKQUEUE_TARGET": "http://127.0.0.1:1",
    }
    with serving("dispatcher.cli", "serve", "--http-port", "0", env=env) as it:
        assert it.logged("dispatching") == "dispatching, 3 at a time"

        it.tell()
        assert it.ended() == 0


class Broker(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BrokerRequest)
        self.events: list[tuple[str | None, dict[str, object]]] = []


class BrokerRequest(BaseHTTPRequestHandler):
    server: Broker

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.events.append((self.headers["ce-source"], json.loads(body)))
        self.send_response(202)
        self.end_headers()

    def log_message(self, *args: object) -> None:  # stderr is for pytest
        pass


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_failures_are_told_to_the_broker_under_the_given_name(url: str, broker: Broker) -> None:
    run(url, "enqueue", "bad")
    env = {"ERROR_EVENT_INGRESS_URI": f"http://127.0.0.1:{broker.server_port}", "WORKQUEUE_EVENTS_NAME": "builds"}
    once = ["run", "--once", "--callback", "tests.support.reconcilers:fail", "--max-retry", "1", "--queue", url]

    assert process("dispatcher", *once, env=env).code == 0

    [(source, data)] = broker.events
    assert (source, data["key"], data["action"]) == ("builds", "bad", "dead-lettered")


class Handler(BaseHTTPRequestHandler):
    """Takes keys over HTTP, as a handler in any language may."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.headers["ce-source"], json.loads(body)["key"]))  # type: ignore[attr-defined]
        self.send_response(204)
        self.end_headers()


def test_keys_are_posted_to_a_url(url: str) -> None:
    run(url, "enqueue", "a")
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        callback = ["--callback", f"http://127.0.0.1:{server.server_port}/handle", "--events-name", "builds"]
        ended = process("dispatcher", "run", "--once", *callback, "--queue", url)
        server.shutdown()
        thread.join()

    assert (ended.code, server.seen) == (0, [("builds", "a")])  # type: ignore[attr-defined]
    assert run(url, "ls").out == "the queue is empty\n"


def test_a_program_is_run_for_each_key(url: str, tmp_path: Path) -> None:
    run(url, "enqueue", "a")
    command = f"{sys.executable} -c 'import sys; open(sys.argv[1], \"w\").write(sys.stdin.read())' {tmp_path}/seen"

    ended = process("dispatcher", "run", "--once", "--command", command, "--queue", url)

    assert ended.code == 0
    assert json.loads((tmp_path / "seen").read_text())["key"] == "a"


def test_a_policy_named_on_the_command_line_decides_how_long_a_failed_key_waits(url: str) -> None:
    run(url, "enqueue", "bad")
    failing = ["run", "--once", "--callback", "tests.support.reconcilers:fail", "--backoff", "linear-1h"]

    assert process("dispatcher", *failing, "--queue", url).code == 0

    state = run(url, "get", "bad", "--json").json
    waits = datetime.fromisoformat(state["not_before"]) - datetime.fromisoformat(state["queued_time"])
    assert timedelta(seconds=540) <= waits <= timedelta(seconds=1140)


def test_the_policies_are_listed_with_what_they_wait() -> None:
    listed = dispatcher("policies", "--json").json

    assert [policy["policy"] for policy in listed] == list(POLICIES)
    assert listed[1] == {
        "policy": "linear-1m",
        "seconds": {"1": [0.5, 1.5], "2": [2.052632, 6.157895], "5": [6.710526, 20.131579], "20": [30.0, 90.0]},
    }
    assert "linear-1m     0.5-1.5 s" in dispatcher("policies").out


WRONG = [
    ([], "--callback (WORKQUEUE_CALLBACK), --target (WORKQUEUE_TARGET) or --command (WORKQUEUE_COMMAND)"),
    (["--callback", "a:b", "--target", "grpc://a:1"], "one of them says what is called"),
    (["--command", "true", "--target", "grpc://a:1"], "one of them says what is called"),
    (["--command", "no-such-program-anywhere"], "--command or WORKQUEUE_COMMAND: 'no-such-program-anywhere'"),
    (["--command", "true 'and so on"], "No closing quotation"),
    (["--callback", "http://a:99999/"], "--callback or WORKQUEUE_CALLBACK: 'http://a:99999/' is no URL"),
    (["--callback", "http://a/", "--ca", "/c"], "cannot read /c"),
    (["--target", "grpc://a:1", "--backoff", "linear-2m"], "--backoff or WORKQUEUE_BACKOFF: there is no retry policy"),
    (["--callback", "json"], "--callback or WORKQUEUE_CALLBACK: it takes package.module:name"),
    (["--callback", "nowhere:f"], "there is no module 'nowhere'"),
    (["--callback", "json:nothing"], "json has no 'nothing'"),
    (["--callback", "json:__name__"], "json:__name__ is called as (key, attempt), which a str cannot be"),
    (["--callback", "json:loads"], "json:loads is called as (key, attempt), which loads cannot be: too many"),
    (
        ["--target", "grpc://a:1", "--backoff", "tests.support.reconcilers:complete"],
        "(attempts), which complete cannot be: missing",
    ),
    (["--target", "somewhere"], "--target or WORKQUEUE_TARGET: 'somewhere'"),
    (
        ["--target", "grpc://a:1", "--concurrency", "0"],
        "--concurrency or WORKQUEUE_CONCURRENCY: it takes a whole number",
    ),
    (
        ["--target", "grpc://a:1", "--max-run-time", "0s"],
        "--max-run-time or WORKQUEUE_MAX_RUN_TIME: it takes a duration",
    ),
    (["--target", "grpc://a:1", "--queue", "memory://"], "use it with dispatcher serve"),
    (["--target", "grpc://a:1", "--events-url", "kafka://x"], "--events-url or WORKQUEUE_EVENTS_URL"),
    (["--target", "grpc://a:1", "--events-url", "http://"], "WORKQUEUE_EVENTS_URL: 'http://' is no URL"),
    (["--target", "grpc://a:1", "--events-url", "https://host:99999/"], "to send error events to"),
    (["--target", "grpc://a:1", "--events-url", "http://[::1"], "to send error events to"),
    (["--command", "true", "--events-url", "https://a/", "--ca", "/c"], "cannot read /c"),
    (["--target", "grpc://a:1", "--host", "0.0.0.0"], "reachable from other machines"),
    (["--target", "grpc://a:1", "--http-port", "65536"], "--http-port or WORKQUEUE_HTTP_PORT or PORT"),
    (["--target", "grpc://a:1", "--tls-cert", "/c"], "--tls-key is missing"),
    (["--target", "grpc://a:1", "--tls-cert", "/c", "--tls-key", "/k"], "cannot read /c"),
    (["--target", "grpc://a:1", "--accept-tokens", "/t"], "cannot read the token file /t"),
    (["--target", "grpc://a:1", "--oidc-issuer", "https://a"], "--oidc-audience is missing"),
    (["--target", "grpcs://a:1", "--client-cert", "/c"], "--client-key is missing"),
    (["--target", "grpc://a:1", "--log-level", "loud"], "it takes debug, info, warning or error"),
]


@pytest.mark.parametrize(("args", "says"), WRONG)
def test_a_wrong_setting_stops_the_dispatcher_at_its_start(args: list[str], says: str, tmp_path: Path) -> None:
    ended = dispatcher("run", "--queue", f"sqlite:///{tmp_path}/wq.db", *args)

    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("\n") == 1
    assert says in ended.err


def test_an_address_in_use_is_one_line(url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = process(
            "dispatcher", "run", "--callback", "tests.support.reconcilers:complete", "--http-port", port, "--queue", url
        )

    assert ended.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ended.err
    assert "Traceback" not in ended.err


def test_tokens_guard_the_trigger_and_the_receiver_but_not_the_probes(url: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("open-sesame\n")
    guarded = [
        "--callback",
        "tests.support.reconcilers:complete",
        "--accept-tokens",
        f"{tmp_path}/tokens",
        "--queue",
        url,
    ]
    with serving("dispatcher.cli", "serve", *guarded, *ANY_PORTS) as it:
        http, grpc = it.port("trigger, probes and metrics on"), it.port("listening on")
        place = ["--queue", f"grpc://127.0.0.1:{grpc}"]

        assert [status(http, path) for path in ("/healthz", "/", "/metrics")] == [200, 401, 401]
        assert status(http, "/", "open-sesame") == 200
        assert workqueue("enqueue", "k", *place).code == 1
        assert workqueue("enqueue", "k", *place, "--token-file", f"{tmp_path}/tokens").code == 0


def test_the_receiver_of_a_process_that_drains_turns_callers_away(url: str, gate: socket.socket) -> None:
    run(url, "enqueue", key_of(gate))
    command = ["serve", "--callback", "tests.support.reconcilers:until_released", *ANY_PORTS, "--queue", url]
    with serving("dispatcher.cli", *command) as it:
        grpc_port = it.port("listening on")
        running, _ = gate.accept()
        before = health(grpc_port)
        it.tell()
        it.logged("draining")

        assert (before, health(grpc_port)) == ("SERVING", "NOT_SERVING")
        running.close()
        assert it.ended() == 0


def health(port: int) -> str:
    """What the receiver's service says of itself."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        stub: Any = health_pb2_grpc.HealthStub(channel)
        answer = stub.Check(request, timeout=20)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)

"""`--probe-port`: a kubelet, which has neither certificate nor token, can ask; nobody gets more from it."""

from __future__ import annotations

import asyncio
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support.programs import dispatcher, serving, workqueue
from tests.support.tls import Authority
from workqueue.backends import open_queue
from workqueue.rpc.receiver import receive
from workqueue.telemetry.exposition import Exposition
from workqueue.web.metrics import watching
from workqueue.web.server import http_server

PORTS = ["--http-port", "0", "--probe-port", "0"]
SERVERS = {
    "dispatcher run": ["dispatcher.cli", "run", "--callback", "tests.support.reconcilers:complete"],
    "dispatcher serve": [
        "dispatcher.cli", "serve", "--grpc-port", "0", "--callback", "tests.support.reconcilers:complete",
    ],
    "workqueue receive": ["workqueue.cli", "receive", "--grpc-port", "0"],
    "workqueue hyperqueue": ["workqueue.cli", "hyperqueue", "--grpc-port", "0", "--shards", "grpc://127.0.0.1:1"],
}  # fmt: skip


def status(port: int, path: str) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_asks_for_certificates_and_tokens_answers_plaintext_probes_and_nothing_else(
    server: str, tmp_path: Path
) -> None:
    pair = Authority(tmp_path).issue("127.0.0.1")
    tokens = tmp_path / "tokens"
    tokens.write_text("a-token-that-is-long-enough-to-be-taken\n")
    locked = ["--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), "--tls-client-ca", f"{tmp_path}/ca.pem"]
    queue = {} if "hyperqueue" in server else {"WORKQUEUE_URL": f"sqlite:///{tmp_path}/queue.db"}

    with serving(*SERVERS[server], *PORTS, *locked, "--accept-tokens", str(tokens), env=queue, new=True) as it:
        port = it.port("plaintext probes on")

        assert status(port, "/healthz") == 200
        assert status(port, "/readyz") == (503 if "hyperqueue" in server else 200)  # its shard is down
        assert [status(port, path) for path in ("/metrics", "/", "/push", "/healthz/x")] == [404] * 4


REFUSING = {
    **SERVERS,
    "workqueue scaler": ["workqueue.cli", "scaler", "--grpc-port", "0"],
    "workqueue subscribe": ["workqueue.cli", "subscribe"],
    "workqueue resync": ["workqueue.cli", "resync", "--every", "1h", "--command", "true"],
    "dispatcher schedules": ["dispatcher.cli", "schedules"],
}


@pytest.mark.parametrize("server", REFUSING)
def test_a_server_that_would_be_public_in_plaintext_ends_before_it_opens_its_store(server: str, tmp_path: Path) -> None:
    program, *command = REFUSING[server]
    run = workqueue if program == "workqueue.cli" else dispatcher
    env = {"WORKQUEUE_URL": f"sqlite:///{tmp_path}/queue.db"}

    ended = run(*command, "--http-port", "0", "--host", "0.0.0.0", env=env)

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--host" in ended.err
    assert list(tmp_path.iterdir()) == []


async def readiness(trouble: str) -> int:
    async def why_unready() -> str:
        return trouble

    async with http_server(watching(Exposition(), why_unready), "127.0.0.1", 0) as port:
        return await asyncio.to_thread(status, port, "/readyz")


async def test_who_is_not_ready_says_so() -> None:
    assert [await readiness(trouble) for trouble in ("", "draining")] == [200, 503]


async def stages_of_a_receiver() -> list[str]:
    async with open_queue("memory://") as queue:
        server = receive(queue, port=0)
        troubles = [await server.why_unready()]
        async with server:
            troubles.append(await server.why_unready())
            server.stop()
            troubles.append(await server.why_unready())
    return troubles


async def test_a_grpc_server_is_ready_from_its_start_until_it_is_told_to_stop() -> None:
    assert await stages_of_a_receiver() == ["starting", "", "draining"]

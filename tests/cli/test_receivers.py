from __future__ import annotations

from pathlib import Path
from urllib.request import urlopen

import pytest
import trustme

from tests.support.programs import process, serving, workqueue
from workqueue.rpc.sharding import fnv1a_32

ANY_PORTS = ["--grpc-port", "0", "--http-port", "0"]


def test_a_receiver_takes_keys_and_answers_for_them(url: str) -> None:
    with serving("workqueue.cli", "receive", "--queue", url, *ANY_PORTS) as it:
        http, grpc = it.port("health and metrics on"), it.port("listening on")
        place = ["--queue", f"grpc://127.0.0.1:{grpc}"]

        assert workqueue("enqueue", "k", "--priority", "3", "--payload", "p", *place).out == "enqueued 1\n"
        assert workqueue("get", "k", "--json", *place).json["priority"] == 3
        assert workqueue("get", "nobody", *place).code == 1
        with urlopen(f"http://127.0.0.1:{http}/metrics") as metrics:
            assert b'workqueue_added_keys{queue_name="default"' in metrics.read()

        it.tell()
        assert it.ended() == 0
    assert workqueue("get", "k", "--json", "--queue", url).json["payload_base64"] == "cA=="


def test_a_hyperqueue_places_keys_as_go_does_and_a_dead_shard_fails_its_own_only(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(2)]
    keys = [next(key for key in map(str, range(100)) if fnv1a_32(key.encode()) % 2 == shard) for shard in range(2)]
    receive = ["workqueue.cli", "receive", *ANY_PORTS, "--queue"]
    with serving(*receive, urls[0]) as first, serving(*receive, urls[1]) as second:
        shards = ",".join(f"grpc://127.0.0.1:{it.port('listening on')}" for it in (first, second))
        with serving("workqueue.cli", "hyperqueue", *ANY_PORTS, env={"SHARD_URLS": shards}) as it:
            place = ["--queue", f"grpc://127.0.0.1:{it.port('listening on')}"]
            assert workqueue("enqueue", *keys, *place).code == 0
            second.tell()
            assert second.ended() == 0

            assert [workqueue("get", key, "--queue", url).code for key, url in zip(keys, urls, strict=True)] == [0, 0]
            assert workqueue("get", keys[0], *place).code == 0

            it.tell()
            assert it.ended() == 0


def test_a_receiver_that_is_down_is_worth_another_try() -> None:
    ended = workqueue("get", "k", "--queue", "grpc://127.0.0.1:1", "--patience", "100ms")

    assert (ended.code, ended.out) == (75, "")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("shards", ["", "a,,b", "somewhere", "grpc://a:1,grpc://a:1"])
def test_shards_that_are_none_stop_a_hyperqueue_at_its_start(shards: str) -> None:
    # A process of its own complains of a listening socket that it leaves open, as it did with uvicorn 0.34.
    ended = process("workqueue", "hyperqueue", "--http-port", "0", env={"SHARD_URLS": shards})

    assert ended.code == 2
    assert "shard" in ended.err.lower()


def test_what_only_a_queue_can_tell_is_not_asked_of_a_receiver() -> None:
    ended = workqueue("ls", "--queue", "grpc://127.0.0.1:1")

    assert ended.code == 2
    assert "is a receiver" in ended.err


def test_a_receiver_with_tls_is_called_with_its_authority_and_a_certificate(url: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca")
    for name in ("server", "client"):
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_pem.write_to_path(tmp_path / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(tmp_path / f"{name}.crt")
    served = ["--tls-cert", f"{tmp_path}/server.crt", "--tls-key", f"{tmp_path}/server.key"]
    known = ["--client-cert", f"{tmp_path}/client.crt", "--client-key", f"{tmp_path}/client.key"]
    with serving(
        "workqueue.cli", "receive", "--queue", url, *ANY_PORTS, *served, "--tls-client-ca", f"{tmp_path}/ca"
    ) as it:
        place = ["--queue", f"grpcs://127.0.0.1:{it.port('listening on')}", "--patience", "1s"]

        assert workqueue("enqueue", "k", *place, "--ca", f"{tmp_path}/ca", *known).code == 0
        assert workqueue("enqueue", "k", *place, "--ca", f"{tmp_path}/ca").code != 0
        assert workqueue("enqueue", "k", *place).code != 0

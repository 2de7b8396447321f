"""The relay as its users run it: processes that are killed, targets that are down, stores that fail."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
from pathlib import Path

import pytest

from tests.fakes.redis_server import shared_server
from tests.support.programs import dispatcher, serving, workqueue
from tests.support.relay import Got, Relayed, Target, until

ALLOWED = ("--allow-target", "127.0.0.1")


def test_what_was_acknowledged_while_the_target_was_down_arrives_after_a_kill_9(tmp_path: Path) -> None:
    target = Target()
    with target:
        pass  # it has a port, and is gone
    with Relayed.on(tmp_path / "relay.db") as relay:
        answers = [relay.post(target, b"%d" % number) for number in range(20)]
        relay.server.logged("retried")
        relay.server.tell(signal.SIGKILL)
        relay.server.ended()
    assert {answer.status for answer in answers} == {202}

    with target, Relayed.on(tmp_path / "relay.db"):
        until(lambda: len(set(target.bodies)) == 20)

    assert {got.headers["idempotency-key"] for got in target.got} == {
        answer.json["id"].rpartition("/")[2] for answer in answers
    }


def test_what_was_delivered_is_not_sent_again_after_a_restart(tmp_path: Path) -> None:
    with Target() as target:
        with Relayed.on(tmp_path / "relay.db") as relay:
            place = relay.post(target, b"once").headers["location"]
            until(lambda: relay.ask("GET", place).status == 404)
            relay.server.tell(signal.SIGKILL)
            relay.server.ended()
        with Relayed.on(tmp_path / "relay.db") as relay:
            relay.post(target, b"twice")
            until(lambda: b"twice" in target.bodies)

    assert target.bodies == [b"once", b"twice"]


def test_a_request_arrives_as_it_was_sent(tmp_path: Path) -> None:
    with Target() as target, Relayed.on(tmp_path / "relay.db") as relay:
        relay.ask(
            "PUT", "/a%2Fb/ü?q=1&q=%20".replace("ü", "%C3%BC"), b"\x00body",
            X_Dispatcher_Origin_Host=target.url, Content_Type="text/odd", X_Dispatcher_Timeout="5000", Via="1.1 proxy",
        )  # fmt: skip
        until(lambda: target.got)

    [got] = target.got
    assert (got.method, got.path, got.body) == ("PUT", "/a%2Fb/%C3%BC?q=1&q=%20", b"\x00body")
    assert {name: got.headers[name] for name in ("content-type", "via", "host")} == {
        "content-type": "text/odd",
        "via": "1.1 proxy",
        "host": target.url.removeprefix("http://"),
    }
    assert not [name for name in got.headers if name.startswith("x-dispatcher")]
    assert "user-agent" not in got.headers


def test_a_500_is_tried_again_and_a_404_is_given_up_with_the_answer(tmp_path: Path) -> None:
    failing = iter([500, 429])
    with (
        Target(lambda got: (next(failing, 200), {}, b"")) as flaky,
        Target(lambda got: (404, {}, b"no such")) as never,
        Relayed.on(tmp_path / "relay.db") as relay,
    ):
        relay.post(flaky, b"again")
        given_up = relay.post(never, b"never").headers["location"]
        until(lambda: len(flaky.got) == 3)
        until(lambda: relay.ask("GET", given_up).json["state"] == "dead-lettered")
        shown = relay.ask("GET", given_up).json
        letters = relay.ask("GET", "/_relay/dead-letters").json["dead_letters"]

    assert (shown["tries"], shown["last_error"]) == (1, "NonRetriableError: the target answered 404: no such")
    assert [letter["id"] for letter in letters] == [shown["id"]]
    assert len({got.headers["idempotency-key"] for got in flaky.got}) == 1


def test_a_target_that_does_not_answer_holds_nobody_elses_place(tmp_path: Path) -> None:
    hanging = threading.Event()

    def hang(got: Got) -> tuple[int, dict[str, str], bytes]:
        hanging.wait()
        return 200, {}, b""

    settings = ("--per-target", "2", "--default-timeout", "60s")
    with Target(hang) as slow, Target() as quick, Relayed.on(tmp_path / "relay.db", *settings) as relay:
        for number in range(60):
            relay.post(slow, b"%d" % number)
        until(lambda: len(slow.got) == 2)
        for number in range(5):
            relay.post(quick, b"%d" % number)
        until(lambda: len(quick.got) == 5)
        assert len(slow.got) == 2
        hanging.set()
        until(lambda: len(slow.got) == 60)

    assert len(set(slow.bodies)) == 60


def test_an_answer_that_takes_too_long_is_a_failed_try(tmp_path: Path) -> None:
    calls, again = iter(range(2)), threading.Event()

    def hang_until_the_next(got: Got) -> tuple[int, dict[str, str], bytes]:
        if next(calls):
            again.set()
        again.wait()
        return 200, {}, b""

    with Target(hang_until_the_next) as target, Relayed.on(tmp_path / "relay.db") as relay:
        relay.post(target, b"x", X_Dispatcher_Timeout="100")
        assert "no answer within 0:00:00.100000" in relay.server.logged("retried at attempt 1")
        until(lambda: len(target.got) == 2)


def test_a_store_that_is_down_is_a_503_and_nothing_is_acknowledged(tmp_path: Path) -> None:
    file = tmp_path / "relay.db"
    with Target() as target, Relayed.on(file, "--keep-dead-letters", "1d") as relay:
        locking = sqlite3.connect(file, isolation_level=None)
        locking.execute("BEGIN IMMEDIATE")
        refused = relay.post(target, b"refused")
        locking.execute("ROLLBACK")
        locking.close()
        accepted = relay.post(target, b"accepted")
        until(lambda: b"accepted" in target.bodies)

    assert (refused.status, refused.json["error"], refused.headers["retry-after"]) == (503, "unavailable", "5")
    assert accepted.status == 202
    assert target.bodies == [b"accepted"]


def test_no_more_are_taken_than_may_wait(tmp_path: Path) -> None:
    target = Target()
    with target:
        pass
    with Relayed.on(tmp_path / "relay.db", "--most-stored", "3") as relay:
        statuses = [relay.post(target, b"%d" % number).status for number in range(5)]

    assert statuses == [202, 202, 202, 503, 503]


def test_a_repeated_idempotency_key_is_sent_once_before_and_after_delivery(tmp_path: Path) -> None:
    target = Target()
    with target:
        pass
    with Relayed.on(tmp_path / "relay.db") as relay:
        first = relay.post(target, b"pay", Idempotency_Key="order-1")
        again = relay.post(target, b"pay", Idempotency_Key="order-1")
        other = relay.post(target, b"pay twice", Idempotency_Key="order-1")
        with target:
            until(lambda: relay.ask("GET", first.headers["location"]).json["state"] == "delivered")
            late = relay.post(target, b"pay", Idempotency_Key="order-1")

    assert [first.status, again.status, other.status, late.status] == [202, 202, 422, 202]
    assert {answer.headers["location"] for answer in (first, again, late)} == {first.headers["location"]}
    assert ["idempotent-replayed" in answer.headers for answer in (first, again, late)] == [False, True, True]
    assert [got.headers["idempotency-key"] for got in target.got] == ["order-1"]


def test_delivered_requests_are_kept_with_their_outcome_where_that_is_asked_for(tmp_path: Path) -> None:
    made = Target(lambda got: (201, {}, b"made"))
    with made as target, Relayed.on(tmp_path / "relay.db", env={"EVENT_SOURCING": "true"}) as relay:
        place = relay.post(target, b"x", "/orders?secret=1").headers["location"]
        until(lambda: relay.ask("GET", place).json["state"] == "delivered")
        shown = relay.ask("GET", place).json
        listed = relay.ask("GET", "/_relay/delivered").json["delivered"]

    assert (shown["status"], shown["tries"], shown["path"], shown["target"]) == (201, 1, "/orders", target.url)
    assert listed == [shown]


def test_a_sigterm_lets_calls_under_way_end_and_sends_nothing_more(tmp_path: Path) -> None:
    calling, answering = threading.Event(), threading.Event()

    def wait(got: Got) -> tuple[int, dict[str, str], bytes]:
        calling.set()
        answering.wait()
        return 200, {}, b""

    with Target(wait) as target, Relayed.on(tmp_path / "relay.db", "--per-target", "1") as relay:
        relay.post(target, b"under way")
        calling.wait()
        relay.post(target, b"waiting")
        relay.server.tell()
        relay.server.logged("SIGTERM")
        answering.set()
        assert relay.server.ended() == 0
    ended = workqueue("ls", "--json", "--queue", f"sqlite:///{tmp_path}/relay.db?name=relay")

    assert target.bodies == [b"under way"] or target.bodies == [b"under way", b"waiting"]
    assert len(ended.json["queued"]) == 2 - len(target.got)


def test_the_variables_of_the_go_relay_say_the_same_here(tmp_path: Path) -> None:
    env = {
        "TRANSACTION_LOG": str(tmp_path / "log"),
        "DEAD_LETTER": str(tmp_path / "dead"),
        "LISTEN": "127.0.0.1:0",
        "WORKER": "3",
        "RETRYLIMIT": "1",
        "DEFAULT_TIMEOUT": "5000",
    }
    with Target(lambda got: (500, {}, b"")) as target, serving("dispatcher.cli", "relay", *ALLOWED, env=env) as server:
        relay = Relayed(server)
        place = relay.post(target, b"x").headers["location"]
        until(lambda: relay.ask("GET", place).json["state"] == "dead-lettered")

    assert len(target.got) == 1
    assert (tmp_path / "log").read_bytes().startswith(b"SQLite format 3\0")
    assert not (tmp_path / "dead").exists()
    assert any("DEAD_LETTER is ignored" in line for line in server.lines)


def test_the_log_of_the_go_relay_is_refused_with_one_line(tmp_path: Path) -> None:
    log = tmp_path / "transactions.log"
    log.write_text(json.dumps({"id": 1, "state": "PENDING"}))

    ended = dispatcher("relay", *ALLOWED, env={"TRANSACTION_LOG": str(log)})

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "if it is the log of the Go relay, let that relay deliver what is in it" in ended.err
    assert log.read_text() == json.dumps({"id": 1, "state": "PENDING"})


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "--allow-target (WORKQUEUE_ALLOW_TARGET) says which hosts may be called"),
        (("--allow-target", "http://b"), "--allow-target or WORKQUEUE_ALLOW_TARGET: 'http://b' is no target"),
        ((*ALLOWED, "--queue", "memory://"), "forgets everything with its process"),
        ((*ALLOWED, "--queue", "sqlite:///x.db?max_payload=1KiB"), "max_payload=1024 is too little for --max-body"),
        ((*ALLOWED, "--queue", "sqlite:///x.db", "--transaction-log", "y.db"), "give one of them"),
        ((*ALLOWED, "--listen", ":80"), "--listen or LISTEN: host=0.0.0.0 is reachable from other machines"),
        ((*ALLOWED, "--listen", "80"), "it takes [HOST]:PORT"),
        ((*ALLOWED, "--per-target", "20", "--concurrency", "20"), "concurrency is more than per_target"),
        ((*ALLOWED, "--default-timeout", "2h"), "timeout is from 1 ms to 1:00:00"),
    ],
)
def test_a_wrong_setting_stops_the_relay_with_one_line(tmp_path: Path, args: tuple[str, ...], said: str) -> None:
    ended = dispatcher("relay", *args, env={"TRANSACTION_LOG": ""})

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert said in ended.err


def test_two_relays_on_one_redis_share_its_requests_and_one_takes_over_what_the_other_had(tmp_path: Path) -> None:
    url = shared_server().url("relay-of-two") + "&lease=2s&renew=500ms&timeout=500ms"
    calling, answering = threading.Event(), threading.Event()

    def wait(got: Got) -> tuple[int, dict[str, str], bytes]:
        calling.set()
        answering.wait()
        return 200, {}, b""

    args = ("dispatcher.cli", "relay", *ALLOWED, "--queue", url, "--http-port", "0")
    with Target(wait) as target, serving(*args) as first:
        place = Relayed(first).post(target, b"x", Idempotency_Key="once").headers["location"]
        calling.wait()
        with serving(*args) as second:
            relay = Relayed(second)
            first.tell(signal.SIGKILL)
            first.ended()
            answering.set()
            until(lambda: relay.ask("GET", place).json["state"] == "delivered")
            again = relay.post(target, b"x", Idempotency_Key="once")

    assert again.headers["idempotent-replayed"] == "true"
    assert {got.headers["idempotency-key"] for got in target.got} == {"once"}

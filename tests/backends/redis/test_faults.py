"""What can be wrong with a Redis, from the password to the memory: one clear line each, and it heals where it can."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from dispatcher import DispatcherSettings
from dispatcher.health import Health
from dispatcher.setup import Setup
from tests.fakes.redis_server import RedisServer, shared_server
from tests.fakes.tcp_proxy import TcpProxy
from tests.support.dispatching import nothing, settle_down
from tests.support.redis import eligible, fresh_name, lease, lease_one, opened
from tests.support.tls import Authority
from workqueue import Configuration, Options, StoreUnavailableError
from workqueue.errors import QueueClosedError, StoreUnusableError
from workqueue.testing import FakeClock


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that a test may break."""
    with RedisServer() as own:
        yield own


async def refusal(url: str) -> str:
    """The line with which opening `url` is refused for good."""
    with pytest.raises(StoreUnusableError) as refused:
        async with opened(url):
            raise AssertionError("it was opened")
    return str(refused.value)


async def test_a_wrong_password_is_refused_at_once() -> None:
    with RedisServer(requirepass="right") as server:
        for userinfo in ("", ":wrong@", "nobody:right@"):
            line = await refusal(server.url().replace("://", f"://{userinfo}"))
            assert line == f"Redis at {server.address} refused the user or password of the URL"
        async with opened(server.url().replace("://", "://:right@")) as queue:
            await queue.queue("a")


async def test_a_database_that_is_not_there_is_refused_as_such(server: RedisServer) -> None:
    line = await refusal(server.url().replace("/0?", "/99?"))

    assert line == f"Redis at {server.address} refused the connection: DB index is out of range"


async def test_a_redis_on_a_unix_socket_serves_a_queue_and_its_renewals(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with RedisServer(unixsocket=str(path)):
        async with opened(f"redis+unix://{path}?db=2", clock := FakeClock()) as queue:
            await queue.queue("a")
            owned = await lease_one(queue)
            clock.advance(3 * queue.lease_times.duration)
            assert await owned.complete()


async def test_a_rotated_password_is_read_from_its_file_for_the_next_connection(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    with RedisServer(requirepass="first") as server:
        async with opened(server.url(password_file=file), clock := FakeClock()) as queue:
            await queue.queue("a")
            owned = await lease_one(queue)
            with server.connected() as admin:
                admin.config_set("requirepass", "second")
                file.write_text("second\n")
                admin.client_kill_filter(_type="normal", skipme=True)
            await queue.queue("b")
            clock.advance(3 * queue.lease_times.duration)
            assert await owned.complete()


async def test_a_user_that_may_not_do_what_a_queue_needs_is_told(server: RedisServer) -> None:
    server.ask("ACL", "SETUSER", "shy", "on", ">secret", "~other:*", "+@all")

    line = await refusal(server.url().replace("://", "://shy:secret@"))

    assert line.startswith(f"Redis at {server.address} does not permit this user what a queue needs")


async def test_a_user_with_the_rights_that_the_documents_list_can_do_everything(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    documents = (Path(__file__).parents[3] / "docs" / "backends.md").read_text()
    (rights,) = re.findall(r"A user of its own.* needs `([^`]*)`, `([^`]*)` and `([^`]*)`", documents)
    server.ask("ACL", "SETUSER", "own", "on", ">secret", "resetchannels", *" ".join(rights).split())

    async with opened(server.url().replace("://", "://own:secret@"), clock := FakeClock()) as queue:
        await queue.queue("a", Options(priority=1))
        owned = await lease_one(queue)
        clock.advance(timedelta(seconds=6))
        assert await owned.dead_letter("boom")
        assert [await letter.requeue() async for letter in (await queue.enumerate()).dead_letters] == [True]
        await queue.wait(timedelta(seconds=1), 1)
        await queue.configure(await queue.configuration())
        assert (await queue.counts()).queued == 1
        assert (await queue.get("a")).priority == 1
    assert caplog.text == ""


async def test_a_certificate_of_a_ca_that_is_not_trusted_is_refused(server: RedisServer, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    pair = ours.issue("127.0.0.1")
    with TcpProxy(server.port, (str(pair.certificate), str(pair.key))) as proxy:
        url = f"rediss://127.0.0.1:{proxy.port}?tls_ca="
        async with opened(url + str(ours.file)) as queue:
            await queue.queue("a")

        line = await refusal(url + str(theirs.file))

    assert line.startswith(f"Redis at 127.0.0.1:{proxy.port} has a certificate that is not trusted")


async def test_a_port_that_answers_something_else_than_tls_is_named_as_such() -> None:
    with RedisServer(maxclients=1) as server, server.connected():  # says in plain text that it is full
        line = await refusal(f"rediss://{server.address}")

    assert line.startswith(f"Redis at {server.address} does not speak TLS as asked")


async def test_a_redis_that_is_too_old_is_refused() -> None:
    def age(answer: bytes) -> bytes:
        return re.sub(rb"redis_version:\d", b"redis_version:5", answer)

    with TcpProxy(shared_server().port, rewrite=age) as proxy:
        line = await refusal(f"redis://127.0.0.1:{proxy.port}")

    assert re.fullmatch(rf"Redis at 127.0.0.1:{proxy.port} is too old: 5[.\d]+, at least 6.2 is needed", line)


async def test_a_queue_of_a_newer_release_is_refused(server: RedisServer) -> None:
    server.ask("HSET", "{wq:default}:meta", "layout", 2)

    line = await refusal(server.url())

    assert line == (
        f"Redis at {server.address} holds a queue of a newer release (layout 2, known: 1); upgrade this one"
    )


async def test_a_cluster_a_sentinel_and_a_single_server_are_not_taken_for_each_other(server: RedisServer) -> None:
    line = await refusal(f"redis+cluster://{server.address}")
    assert line.startswith(f"Redis at {server.address} is no cluster; the URL should begin with redis://")
    line = await refusal(f"redis+sentinel://{server.address}/mymaster")
    assert line.startswith(f"Redis at {server.address} is no sentinel")
    with RedisServer(cluster_enabled="yes") as node:
        line = await refusal(node.url())
        assert line == f"Redis at {node.address} is a cluster; the URL should begin with redis+cluster://"


async def test_a_read_only_replica_is_refused_and_one_that_became_one_heals(server: RedisServer) -> None:
    with RedisServer() as other:
        async with opened(server.url(timeout="2s")) as queue:
            server.ask("REPLICAOF", "127.0.0.1", other.port)
            with pytest.raises(StoreUnavailableError, match="is a read-only replica"):
                await queue.queue("a")

            line = await refusal(server.url())

            server.ask("REPLICAOF", "NO", "ONE")
            await queue.queue("a")
            assert await eligible(queue) == ["a"]
    assert line.startswith(f"Redis at {server.address} is a read-only replica; point the URL at the master")


async def test_a_policy_that_may_evict_keys_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(maxmemory_policy="allkeys-lru") as server, caplog.at_level(logging.WARNING):
        async with opened(server.url()):
            pass

    assert [record.getMessage() for record in caplog.records] == [
        f"Redis at {server.address} has maxmemory-policy allkeys-lru and may evict queued keys; set it to noeviction"
    ]


async def test_a_redis_that_is_full_refuses_new_keys_whole_and_can_be_drained(server: RedisServer) -> None:
    async with opened(server.url(), FakeClock()) as queue:
        await queue.queue_many((f"key-{number}", Options(payload=b"x" * 1000)) for number in range(100))
        before = await queue.counts()
        server.ask("CONFIG", "SET", "maxmemory", "100kb")

        with pytest.raises(StoreUnavailableError, match=r"is out of memory \(maxmemory\)"):
            await queue.queue_many((f"other-{number}", Options(priority=number)) for number in range(100))

        assert await queue.counts() == before
        started = (await lease(queue)).started
        verbs = [owned.complete() for owned in started[:97]]
        assert all(
            await asyncio.gather(*verbs, started[97].requeue(), started[98].release(), started[99].dead_letter(""))
        )
        assert (await queue.counts()).queued == 2


async def test_a_redis_that_is_full_answers_enqueues_of_keys_that_are_queued_already(server: RedisServer) -> None:
    async with opened(server.url(), FakeClock()) as queue:
        await queue.queue_many((f"key-{number}", Options()) for number in range(100))
        server.ask("CONFIG", "SET", "maxmemory", "100kb")

        await queue.queue_many((f"key-{number}", Options()) for number in range(50))
        with pytest.raises(StoreUnavailableError, match=r"is out of memory \(maxmemory\)"):
            await queue.queue_many([("key-0", Options()), ("new", Options())])

        assert (queue.metrics.added, queue.metrics.deduped) == (100, 50)
        assert (await queue.counts()).queued == 100


async def test_owners_and_operators_can_do_on_a_full_redis_all_that_lets_it_be_drained(server: RedisServer) -> None:
    clock = FakeClock()
    async with opened(server.url(), clock) as queue:
        await queue.queue_many((f"key-{number}", Options(payload=b"x" * 1000)) for number in range(100))
        started = (await lease(queue, limit=3)).started
        listed = (await queue.enumerate(1)).queued[0]
        server.ask("CONFIG", "SET", "maxmemory", "100kb")

        clock.advance(3 * queue.lease_times.duration)  # renewals
        assert [await started[0].complete(), await started[1].requeue(), await started[2].release()] == [True] * 3
        assert await listed.drop()
        await queue.configure(Configuration(paused=True))
        await queue.wait(timedelta(0), concurrency=1)
        await queue.configure(Configuration(starts_per_second=1))
        clock.jump_wall(timedelta(hours=-1))
        assert [owned.key for owned in (await lease(queue)).started] == ["key-10"]


async def test_a_redis_that_was_emptied_is_said_to_be_so_once(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    async with opened(server.url(), clock) as queue:
        await queue.queue_many((key, Options()) for key in ("a", "b"))
        started = [*(await lease(queue, limit=1)).started]
        clock.advance(queue.lease_times.duration)
        server.ask("FLUSHALL")
        with caplog.at_level(logging.CRITICAL):
            clock.advance(queue.lease_times.duration)
            await queue.queue("c")
            started += (await lease(queue)).started
            clock.advance(queue.lease_times.duration)

    assert [owned.lost.is_set() for owned in started] == [True, False]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"Redis at {server.address} was emptied, or its database was replaced: every key ")
    assert "those in progress here among them" in line


async def test_the_owner_of_a_key_learns_that_its_store_was_emptied_and_not_that_another_has_the_key() -> None:
    clock = FakeClock()
    with RedisServer() as server:
        async with opened(server.url(), clock) as queue:
            await queue.queue("a")
            (owned,) = (await lease(queue)).started
            server.ask("FLUSHALL")
            with noted("workqueue") as lines:
                clock.advance(queue.lease_times.duration)  # its first renewal

    assert owned.lost.is_set()
    assert "was emptied" in lines[0], "an operator reads first what happened"
    assert lines[1:] == ["lease of key 'a' lost: the store was emptied or replaced"]


@contextmanager
def noted(name: str) -> Iterator[list[str]]:
    """What is logged meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger(name).addHandler(handler)
    try:
        yield lines
    finally:
        logging.getLogger(name).removeHandler(handler)


async def test_a_redis_that_was_emptied_while_nothing_ran_is_noticed_by_whoever_counts_and_told_to_probes(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    async with opened(server.url(), clock) as queue:
        health = Health(Setup.of(queue, nothing, DispatcherSettings()))
        await queue.queue("a")
        server.ask("FLUSHALL")
        before = health.remark()
        await queue.counts()
        clock.advance(timedelta(seconds=7))
        noticed = health.remark()
        clock.advance(timedelta(hours=1))

        assert (before, health.remark()) == ("", "")
        assert noticed == "the store was emptied or replaced 7 s ago: every key that it had is gone"
        assert [record.levelname for record in caplog.records] == ["CRITICAL"]


async def test_an_outage_has_one_line_at_its_begin_and_one_at_its_end(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(server.url(timeout="200ms")) as queue:
        server.kill()
        with caplog.at_level(logging.INFO, "workqueue.backends.redis"):
            for _ in range(2):
                with pytest.raises(StoreUnavailableError):
                    await queue.queue("a")
            server.start()
            await queue.queue("a")
            await settle_down()

    begin, end = [record.getMessage() for record in caplog.records]
    assert begin.startswith(f"Redis at {server.address} does not answer: ")
    assert end == f"Redis at {server.address} answers again"


async def test_a_master_that_has_too_few_replicas_to_write_says_so(server: RedisServer) -> None:
    async with opened(server.url()) as queue:
        server.ask("CONFIG", "SET", "min-replicas-to-write", 1)
        with pytest.raises(StoreUnavailableError, match="has fewer replicas than its min-replicas-to-write"):
            await queue.queue("a")
        server.ask("CONFIG", "SET", "min-replicas-to-write", 0)
        await queue.queue("a")


async def test_a_redis_that_is_loading_is_waited_for_and_named() -> None:
    with RedisServer(key_load_delay=10_000, loading_process_events_interval_bytes=1024) as server:
        async with opened(server.url()) as queue:
            await queue.queue_many((f"key-{number}", Options(priority=number)) for number in range(400))
        server.ask("SAVE")
        server.kill()
        server.start()

        with pytest.raises(StoreUnavailableError, match="is still loading its data"):
            async with opened(server.url(timeout="2s")):
                pass
        async with opened(server.url(timeout="20s", lease="1m")) as queue:
            assert (await queue.counts()).queued == 400


async def test_a_redis_that_is_down_is_named_in_time(server: RedisServer) -> None:
    server.kill()
    patient = asyncio.ensure_future(opened(server.url(timeout="50s", lease="1m")).__aenter__())

    with pytest.raises(StoreUnavailableError, match=f"Redis at {server.address} does not answer: connection refused"):
        async with opened(server.url(timeout="300ms")):
            pass

    assert not patient.done()
    patient.cancel()
    await asyncio.wait((patient,))


async def test_calls_made_while_redis_is_down_are_carried_out_when_it_is_back() -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with opened(server.url()) as queue:
            await queue.queue_many([("a", Options()), ("b", Options())])
            (owned, _) = (await lease(queue)).started
            server.kill()
            waiting = asyncio.gather(queue.queue("c"), owned.complete(), lease(queue))
            await asyncio.wait((waiting,), timeout=0.1)
            assert not waiting.done()

            server.start()

            stored, completed, leased = await waiting
            assert (stored, completed, [started.key for started in leased.started]) == (None, True, ["c"])


async def test_what_was_acknowledged_survives_a_kill_with_an_aof_that_is_always_synced() -> None:
    with RedisServer(appendonly="yes", appendfsync="always") as server:
        async with opened(server.url()) as queue:
            for number in range(20):
                await queue.queue(f"key-{number:02}")
            server.kill()
            server.start()
            assert await eligible(queue) == [f"key-{number:02}" for number in range(20)]


async def test_a_redis_that_hangs_fails_calls_in_time_and_is_taken_up_again(server: RedisServer) -> None:
    async with opened(server.url(timeout="400ms")) as queue:
        await queue.queue("a")
        server.freeze()
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            await queue.queue("b")
        with pytest.raises(StoreUnavailableError, match="does not answer"):
            await lease(queue)
        server.thaw()

        await queue.queue("c")

        assert {"a", "c"} <= {*await eligible(queue)} | {owned.key for owned in (await lease(queue)).started}


async def test_scripts_that_the_server_forgot_are_sent_again(server: RedisServer) -> None:
    async with opened(server.url(), clock := FakeClock()) as queue:
        await queue.queue("a")
        owned = await lease_one(queue)
        clock.advance(timedelta(seconds=6))
        server.ask("SCRIPT", "FLUSH")

        clock.advance(timedelta(seconds=60))
        await queue.queue("b")

        assert await owned.complete()
        assert await eligible(queue) == ["b"]


async def test_a_closed_queue_says_so_and_leaves_no_call_hanging(server: RedisServer) -> None:
    async with opened(server.url()) as queue:
        server.kill()
        hanging = asyncio.ensure_future(queue.queue("a"))
        await settle_down()

    with pytest.raises(QueueClosedError):
        await hanging
    for call in (queue.queue("a"), queue.counts(), lease(queue), queue.get("a"), queue.wait(timedelta(seconds=1), 1)):
        with pytest.raises(QueueClosedError):
            await call


async def test_two_queues_of_one_redis_do_not_meet() -> None:
    server = shared_server()
    async with opened(server.url(fresh_name())) as one, opened(server.url(fresh_name())) as other:
        await one.queue("a")

        assert (await eligible(one), await eligible(other)) == (["a"], [])

"""The commands about SQS queues: enqueue into one, subscribe to one; as real processes."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from pathlib import Path

from tests.support.aws import Queue, sqs_queue
from tests.support.programs import process, serving
from workqueue import open_queue


async def emptied(queue: Queue) -> None:
    async with asyncio.timeout(30):
        while await queue.counted() != (0, 0):  # noqa: ASYNC110 - another process has to do it
            await asyncio.sleep(0.01)


async def test_keys_go_through_an_sqs_queue_into_one_of_ours(server: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    async with sqs_queue(server) as queue:
        args = ("enqueue", "--queue", queue.url, "--priority", "3", "--payload", "p", "a", "b")
        sent = await asyncio.to_thread(process, "workqueue", *args)
        assert (sent.code, sent.out) == (0, "enqueued 2\n")
        env = {"WORKQUEUE_URL": url, "WORKQUEUE_SQS": queue.url, "WORKQUEUE_HTTP_PORT": "0"}
        with serving("workqueue.cli", "subscribe", env=env) as subscriber:
            port = await asyncio.to_thread(subscriber.port, "metrics on")
            await emptied(queue)
            shown = await asyncio.to_thread(_read, f"http://127.0.0.1:{port}/metrics")
            subscriber.tell()
            assert await asyncio.to_thread(subscriber.ended) == 0
        assert 'result="stored"' in shown
    async with open_queue(url) as ours:
        state = await ours.get("b")
        assert (state.priority, state.payload) == (3, b"p")


async def test_a_killed_subscriber_loses_no_message(server: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/queue.db"
    env = {"WORKQUEUE_URL": url, "WORKQUEUE_HTTP_PORT": "0", "WORKQUEUE_MESSAGE_KEY": "json:id"}
    async with sqs_queue(server) as queue:
        queue.proxy.fail("DeleteMessageBatch", lambda sent: dict.fromkeys(range(len(sent)), False))
        await queue.send(*[json.dumps({"id": number}) for number in range(10)])
        with serving("workqueue.cli", "subscribe", "--sqs", queue.url, env=env) as subscriber:
            await asyncio.to_thread(subscriber.logged, "taking messages")
            async with asyncio.timeout(30):
                while not queue.proxy.requests("DeleteMessageBatch"):  # noqa: ASYNC110 - another process has to do it
                    await asyncio.sleep(0.01)
            subscriber.tell(signal.SIGKILL)
            await asyncio.to_thread(subscriber.ended)
        assert sum(await queue.counted()) == 10, "they were stored, not deleted, and will come again"
    async with open_queue(url) as ours:
        assert (await ours.counts()).queued == 10


async def test_what_is_wrong_is_one_line(server: str) -> None:
    for args, says in (
        (("subscribe", "--sqs", "sqs://nowhere"), "names no SQS queue"),
        (
            ("subscribe", "--sqs", "sqs://sqs.eu-west-1.amazonaws.com/123456789012/q", "--message-key", "x"),
            "attribute:",
        ),
        (("enqueue", "--queue", "sqs://sqs.eu-west-1.amazonaws.com/123456789012/q?x=1", "a"), "no setting x"),
        (("ls", "--queue", "sqs://sqs.eu-west-1.amazonaws.com/123456789012/q"), "is an SQS queue"),
    ):
        ended = await asyncio.to_thread(process, "workqueue", *args)
        assert (ended.code, ended.err.count("\n")) == (2, 1), ended
        assert says in ended.err


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
        return text

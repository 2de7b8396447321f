"""Keys over SQS: a producer sends them to an SQS queue, and elsewhere they become keys of a queue of ours.

    pip install 'workqueue-dispatcher[sqs]' 'moto[server]'
    python -m moto.server -p 5000 &
    python -m examples.sqs --endpoint http://127.0.0.1:5000

25 customers get an event each, and one of them four more. Then two messages come that nobody of ours sent. `order/7` is
read out of the first. The second has no order and can never be a key: it stays in SQS, whose redrive policy would move
it to a dead-letter queue. The commands that do the same are in docs/sqs.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os

from dispatcher import Attempt, Dispatcher, DispatcherSettings
from workqueue import Options, open_queue
from workqueue.enqueuer import BackgroundEnqueuer
from workqueue.sources.sqs import KeyOf, Message, SQSSource, parse_key
from workqueue.sqs import Address, SQSSink
from workqueue.sqs.client import open_client
from workqueue.sqs.message import read_body

QUEUE = "sqs://sqs.eu-west-1.amazonaws.com/123456789012/orders"
STRANGERS = (json.dumps({"detail": {"order": "order/7"}}), "no JSON")


async def produce(address: Address) -> None:
    """Send our own keys, ten a request, and two messages as another system sends them."""
    async with SQSSink(address) as sink, BackgroundEnqueuer(sink) as enqueuer:
        for number in [*range(25), 24, 24, 24, 24]:
            await enqueuer.put(f"customer/{number}")
    async with open_client(address, 1) as client:
        for body in STRANGERS:
            await client.send_message(QueueUrl=address.queue_url, MessageBody=body)
    sent = enqueuer.metrics
    print(f"put {sent.put} keys, merged {sent.merged}, sent {sent.sent}; {len(STRANGERS)} messages of another system")


def ours_or_an_order(of_order: KeyOf) -> KeyOf:
    """What a message is a key of: what we sent ourselves, else what its `detail.order` says."""

    def key_of(message: Message) -> tuple[str, Options]:
        return read_body(message.body) or of_order(message)

    return key_of


async def consume(address: Address) -> None:
    """Take the messages into a queue of ours, and run its keys until they are all done."""
    done: list[str] = []
    everything = asyncio.Event()

    async def reconcile(key: str, attempt: Attempt) -> None:
        done.append(key)
        if len(done) == 26:
            everything.set()

    key_of = ours_or_an_order(parse_key("json:detail.order"))
    async with (
        open_queue("memory://") as queue,
        SQSSource(address, queue, key_of) as source,
        Dispatcher(queue, reconcile, DispatcherSettings(concurrency=10)),
        asyncio.TaskGroup() as group,
    ):
        group.create_task(source.run())
        await everything.wait()
        source.end()
    print(f"done: {len(done)} keys, order/7 among them: {'order/7' in done}")


async def main(endpoint: str) -> None:
    """Make the SQS queue, fill it, empty it, and look at what is left."""
    address = Address.parse(f"{QUEUE}?endpoint={endpoint}")
    async with open_client(address, 1) as client:
        await client.create_queue(QueueName=address.name)
    await produce(address)
    await consume(address)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--endpoint", required=True, help="moto's server, or another that plays SQS")
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "any")  # such a server takes any, and the client wants some
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "any")
    asyncio.run(main(parser.parse_args().endpoint))

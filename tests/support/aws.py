"""For the tests against an SQS server: a queue of a test's own, and what is in it."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from tests.fakes.sqs_proxy import SQSProxy, proxied
from workqueue.sqs.address import Address
from workqueue.sqs.client import open_client

__all__ = ["Queue", "sqs_queue"]


@dataclass
class Queue:
    """An SQS queue, asked directly and through a proxy."""

    address: Address
    """Through the proxy."""
    proxy: SQSProxy
    client: Any

    @property
    def url(self) -> str:
        return self.address.queue_url.replace("https://", "sqs://") + f"?endpoint={self.proxy.url}&region=eu-west-1"

    async def send(self, *bodies: str, **more: Any) -> None:
        for body in bodies:
            await self.client.send_message(QueueUrl=self.address.queue_url, MessageBody=body, **more)

    async def received(self) -> list[dict[str, Any]]:
        """Every message that is visible."""
        found: list[dict[str, Any]] = []
        while messages := (await self._receive()).get("Messages"):
            found += messages
        return found

    async def keys(self) -> list[str]:
        return [json.loads(message["Body"])["key"] for message in await self.received()]

    async def counted(self) -> tuple[int, int]:
        """How many messages are visible, and how many are hidden."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.client.get_queue_attributes(QueueUrl=self.address.queue_url, AttributeNames=names)
        return int(answer["Attributes"][names[0]]), int(answer["Attributes"][names[1]])

    async def _receive(self) -> Any:
        return await self.client.receive_message(
            QueueUrl=self.address.queue_url,
            MaxNumberOfMessages=10,
            MessageSystemAttributeNames=["All"],
            VisibilityTimeout=600,
        )


@asynccontextmanager
async def sqs_queue(server: str, *, fifo: bool = False, **attributes: str) -> AsyncIterator[Queue]:
    """A new queue on the server at an address, with a proxy before it."""
    name = f"q{secrets.token_hex(6)}" + (".fifo" if fifo else "")
    direct = Address.parse(f"sqs://sqs.eu-west-1.amazonaws.com/123456789012/{name}?endpoint={server}")
    said: Any = attributes | ({"FifoQueue": "true"} if fifo else {})
    async with open_client(direct, 4) as client, proxied(server) as proxy:
        await client.create_queue(QueueName=name, Attributes=said)
        yield Queue(replace(direct, endpoint=proxy.url), proxy, client)

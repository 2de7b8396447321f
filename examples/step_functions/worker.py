"""The worker: takes messages from SQS, hands them to the router, and deletes what was answered."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from workqueue.routing import Message, Processed, Router, consume
from workqueue.routing.errors import NoSourceError, ParseError

__all__ = ["work"]

log = logging.getLogger(__name__)


async def work(router: Router, sqs: Any, queue_url: str, until: asyncio.Event) -> None:
    """Process messages of the queue at `queue_url` until `until` is set.

    Args:
        router: hands them to their handlers.
        sqs: a boto3 client of `sqs`.
        queue_url: where from.
        until: looked at after each poll, which waits for a second at most.
    """

    async def received() -> AsyncIterator[Message]:
        while not until.is_set():
            answer = await asyncio.to_thread(
                sqs.receive_message, QueueUrl=queue_url, MaxNumberOfMessages=10, WaitTimeSeconds=1
            )
            for message in answer.get("Messages", ()):
                yield Message(message["Body"].encode(), {"receipt": message["ReceiptHandle"]})

    async def settle(message: Message, ended: Processed | Exception) -> None:
        if isinstance(ended, NoSourceError | ParseError):  # unheard of: SQS delivers it again, then gives it up
            log.error("a message is not for this worker: %s", ended)
            return
        # Deleted after any other failure too: its state machine knows, and says whether to try again.
        await asyncio.to_thread(sqs.delete_message, QueueUrl=queue_url, ReceiptHandle=message.headers["receipt"])

    await consume(router, received(), settle)

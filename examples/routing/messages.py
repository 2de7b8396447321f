"""Raw messages from three places, routed to typed handlers: `python -m examples.routing.messages`.

One router serves a webhook, a queue and an iterator. Here messages of a shop (an envelope of its own), of a cloud (its
event format) and CloudEvents come in by a queue, each as the payload of a key.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from uuid import uuid4

import dispatcher
from workqueue import Options, WorkQueue, open_queue
from workqueue.routing import (
    Context,
    Hooks,
    Router,
    Source,
    all_of,
    field_equals,
    fields,
    has_fields,
    inspect_cloud_event,
    queue_callback,
)


@dataclass
class Order:
    """What a message about an order has as its payload."""

    id: int
    total: float

    def validate(self) -> None:
        """Called by the router once the payload was decoded."""
        if self.total < 0:
            raise ValueError(f"the total of order {self.id} is negative")


@dataclass
class Upload:
    """What a message about a file has as its payload."""

    name: str


def skip(context: Context, error: Exception) -> None:
    """Decide that a payload that was refused need not be tried again: the message counts as handled."""
    print(f"skipped {context.key} of {context.source}: {error}")


router = Router(
    Source("shop", has_fields("type", "payload"), fields(key="type", payload="payload")),
    Source(
        "cloud",
        all_of(field_equals("source", "cloud.storage"), has_fields("detail-type", "detail")),
        fields(key="detail-type", payload="detail"),
    ),
    hooks=Hooks(on_validation_error=skip),
)
router.group(inspect_cloud_event, Source("events", has_fields("type"), fields(key="type", payload="data")))


@router.proc("order.created")
async def order_created(order: Order, context: Context) -> None:
    """Handle an order, whoever sent it."""
    print(f"order {order.id} of {order.total} by {context.source}")


@router.proc("Object Created")
async def uploaded(upload: Upload) -> None:
    """Handle a file that was stored."""
    print(f"file {upload.name}")


MESSAGES = [
    {"type": "order.created", "payload": {"id": 1, "total": 9.5}},
    {"source": "cloud.storage", "detail-type": "Object Created", "detail": {"name": "report.pdf"}},
    {"type": "order.created", "payload": {"id": 2, "total": -1}},
]
EVENT = {"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/partner", "ce-type": "order.created"}


async def enqueue(queue: WorkQueue) -> None:
    """Store each message as the payload of a key of its own: what counts is that each is handled, not its latest."""
    for message in MESSAGES:
        await queue.queue(f"message/{uuid4()}", Options(payload=json.dumps(message).encode()))
    await queue.queue(f"message/{uuid4()}", Options(payload=b'{"id": 3, "total": 0}', meta=EVENT))


async def main() -> None:
    """Handle four messages in one round."""
    async with open_queue("memory://") as queue:
        await enqueue(queue)
        await dispatcher.handle(queue, callback=queue_callback(router))


if __name__ == "__main__":
    asyncio.run(main())

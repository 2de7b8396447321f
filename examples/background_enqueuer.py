"""A producer that never waits for its queue: 10,000 events for 100 customers are taken at once and sent as few keys.

    python -m examples.background_enqueuer

One event has a key that no queue takes. It is refused at once; what fails later goes to `report`, key by key.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from workqueue import InvalidKeyError, Options, open_queue
from workqueue.enqueuer import BackgroundEnqueuer, FailedKey


def report(failed: FailedKey) -> None:
    """Decide what becomes of a key that could not be stored; here, say so."""
    print(f"not stored: {failed.key}: {failed.error}")


async def main() -> None:
    """Put the events, leave the block, and look at what arrived."""
    async with open_queue("memory://") as queue:
        async with BackgroundEnqueuer(queue, on_error=report) as enqueuer:
            for number in range(10_000):
                seen = datetime.now(UTC).isoformat()
                await enqueuer.put(f"customer/{number % 100}", Options(meta={"last-seen": seen}))
            try:
                await enqueuer.put("customer/\n")
            except InvalidKeyError as error:
                print(f"refused at once: {error}")
        counted = enqueuer.metrics
        print(f"put {counted.put}, merged {counted.merged}, sent {counted.sent}, failed {counted.failed}")
        print(f"in the queue: {(await queue.counts()).queued} keys")


if __name__ == "__main__":
    asyncio.run(main())

"""Three kinds of keys in one queue, and a callback for each: `python -m examples.routing.several_callbacks`.

As a program: `dispatcher serve --callback examples.routing.several_callbacks:router`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta

import dispatcher
from dispatcher import Attempt
from workqueue import open_queue
from workqueue.attempt import AsyncCallback
from workqueue.routing import KeyRouter

log = logging.getLogger(__name__)

router = KeyRouter()


@router.use
def timed(following: AsyncCallback) -> AsyncCallback:
    """Middleware: wrapped around every callback."""

    async def wrapped(key: str, attempt: Attempt) -> object:
        began = time.perf_counter()
        try:
            return await following(key, attempt)
        finally:
            log.debug("%s took %.3f s", key, time.perf_counter() - began)

    return wrapped


@router.route("customer")
async def customer(key: str, attempt: Attempt) -> None:
    """Called for `customer/42`."""
    print(f"customer: {key}")


@router.route("certificate", retry="linear-10m", max_retry=10, max_run_time=timedelta(minutes=5))
async def certificate(key: str, attempt: Attempt) -> None:
    """Called for `certificate/example.org`. A plain `def` would be called in a thread."""
    print(f"certificate: {key}")


@router.route("")
async def anything_else(key: str, attempt: Attempt) -> None:
    """Called for what no other route takes."""
    print(f"anything else: {key}")


async def main() -> None:
    """Enqueue a key of each kind, and reconcile them in one round."""
    async with open_queue("memory://") as queue:
        for key in ("customer/42", "certificate/example.org", "cleanup"):
            await queue.queue(key)
        await dispatcher.handle(queue, callback=router)


if __name__ == "__main__":
    asyncio.run(main())

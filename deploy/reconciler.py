"""A reconciler for deploy/compose.yaml: it waits a little for each key, and now and then it fails."""

import argparse
import asyncio
import logging
import random

from dispatcher import Attempt
from workqueue.access.security import ServerSecurity
from workqueue.rpc.reconciler import serve

log = logging.getLogger("reconciler")


async def reconcile(key: str, attempt: Attempt) -> None:
    """Done after a moment; one in ten attempts fails, and is tried again."""
    await asyncio.sleep(random.uniform(0.05, 0.5))
    if random.random() < 0.1:
        raise RuntimeError(f"{key} could not be reconciled at attempt {attempt.attempts}")
    log.info("reconciled %s", key)


async def main(host: str, port: int) -> None:
    """Serve until SIGTERM."""
    async with serve(reconcile, host=host, port=port, security=ServerSecurity(insecure=True)) as server:
        await server.wait()


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument("--port", type=int, default=8080)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    asyncio.run(main(**vars(flags.parse_args())))

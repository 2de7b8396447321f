"""Draws the pictures of docs/console.md: `python -m tests.browser.screens`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta

from tests.browser.chromium import chromium
from tests.support.processes import REPOSITORY
from workqueue import Options, open_queue
from workqueue.clock import from_us
from workqueue.fallbacks import FullQueue
from workqueue.interface import OwnedInProgressKey
from workqueue.optional import LeaseRequest
from workqueue.testing import FakeClock
from workqueue.web.console import Console
from workqueue.web.server import http_server

FOLDER = REPOSITORY / "docs" / "images"
PAGES = {"overview": "", "dead-lettered": "keys/dead-lettered", "key": "key?key=cluster-1/deployments/web-17"}
META = {"traceparent": f"00-{'4bf92f3577b34da6a3ce929d0e0e4736'}-00f067aa0ba902b7-01"}


async def work(queue: FullQueue, clock: FakeClock, console: Console) -> None:
    """An hour of keys that come in waves and are worked off; every sample is one that was taken."""
    samples = next(iter(console._desk.queues.values())).samples
    held: Sequence[OwnedInProgressKey] = ()
    for step in range(700):
        clock.advance(timedelta(seconds=5))
        for number in range(9 if step % 180 < 60 else 3):
            key = f"cluster-{number}/deployments/web-{step % 90}"
            await queue.queue(key, Options(priority=number % 3, payload=b'{"spec": {"replicas": 3}}', meta=META))
        for owned in held:
            await (owned.dead_letter("HTTP 503: no answer from the API server") if step % 97 == 0 else owned.complete())
        held = (await queue.lease(LeaseRequest(4 + step // 30 % 3, 20))).started
        await samples.take()
    spec = json.dumps({"spec": {"replicas": 3, "image": "web:1.7"}}).encode()
    await queue.queue("cluster-1/deployments/web-17", Options(priority=5, payload=spec, meta=META))
    later = from_us(clock.wall_us())
    await queue.queue("nightly", Options(not_before=later + timedelta(hours=6), not_before_floor=True))


async def main() -> None:
    """Draw every page, wide and narrow, light and dark."""
    FOLDER.mkdir(exist_ok=True)
    clock = FakeClock()
    queue = open_queue("memory://?name=builds", clock=clock, owner="dispatcher-7f9c")
    async with queue:
        console = Console([queue])
        await work(queue, clock, console)
        async with http_server(console, "127.0.0.1", 0) as port:
            for kind, width in (("wide", 1280), ("narrow", 390)):
                for scheme in ("light", "dark"):
                    async with chromium(viewport={"width": width, "height": 760}, color_scheme=scheme) as context:
                        page = await context.new_page()
                        for name, rest in PAGES.items():
                            await page.goto(f"http://127.0.0.1:{port}/q/builds/{rest}")
                            await page.screenshot(path=FOLDER / f"console-{name}-{kind}-{scheme}.png")


if __name__ == "__main__":
    asyncio.run(main())

"""Draws the pictures of docs/console.md: `python -m tests.browser.screens`."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal
from unittest import mock

from playwright.async_api import Browser

from tests.browser.chromium import chromium
from tests.support.processes import REPOSITORY
from workqueue import Options, open_queue
from workqueue.fallbacks import FullQueue
from workqueue.interface import OwnedInProgressKey
from workqueue.optional import LeaseRequest
from workqueue.telemetry.standing import Standing
from workqueue.testing import FakeClock
from workqueue.throttle import Configuration
from workqueue.web.console import Console, ConsoleSettings
from workqueue.web.console.history import Sample
from workqueue.web.console.watched import Watched
from workqueue.web.server import http_server

FOLDER = REPOSITORY / "docs" / "images"
KEY = "cluster-1/deployments/web-17"
TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
SHOTS: list[tuple[str, str, int, Literal["light", "dark"]]] = [  # name, page, width, scheme
    ("overview-light", "", 1120, "light"),
    ("overview-narrow", "", 390, "dark"),
    ("dead-lettered-light", "/keys/dead-lettered", 1120, "light"),
    ("dead-lettered-narrow", "/keys/dead-lettered", 390, "light"),
    ("key-dark", f"/key?key={KEY}", 1120, "dark"),
    ("key-narrow", f"/key?key={KEY}", 390, "light"),
]
LIMIT = 7
ERRORS = ["HTTP 503: no answer from the API server", "TimeoutError: no answer within 30 s", "HTTP 409: conflict"]


@dataclass
class Hour:
    """An hour of keys that come in waves and are worked off, on a clock that ends now; each sample was taken."""

    queue: FullQueue
    clock: FakeClock
    dice: random.Random = field(default_factory=lambda: random.Random(17))
    held: Sequence[OwnedInProgressKey] = ()
    started: deque[int] = field(default_factory=lambda: deque(maxlen=12))  # a minute of steps, as dispatchers say it
    ended: deque[Counter[str]] = field(default_factory=lambda: deque(maxlen=12))
    samples: list[Sample] = field(default_factory=list)

    async def pass_by(self, until: datetime) -> None:
        """Let it happen."""
        for number in range(4):
            tonight = Options(not_before=until + timedelta(hours=6), not_before_floor=True)
            await self.queue.queue(f"nightly/report-{number}", tonight)
        for step in range(720):
            self.clock.advance(timedelta(seconds=5))
            await self._come(15 if (step + 50) % 240 < 70 else 3)
            self.ended.append(Counter([await self._end(owned) for owned in self.held]))
            self.held = (await self.queue.lease(LeaseRequest(LIMIT, 20))).started
            self.started.append(len(self.held))
            if step % 3 == 2:  # lines that are too ragged make large pictures
                await self.sample(until - timedelta(seconds=5 * (719 - step)))

    async def _come(self, most: int) -> None:
        for _ in range(self.dice.randint(0, most)):
            key = f"cluster-{self.dice.randint(1, 9)}/deployments/web-{self.dice.randint(1, 99)}"
            await self.queue.queue(key, Options(priority=self.dice.choice([0, 0, 0, 5]), payload=b"{}", meta=TRACE))

    async def _end(self, owned: OwnedInProgressKey) -> str:
        if self.dice.random() < 0.004:
            await owned.dead_letter(self.dice.choice(ERRORS))
            return "dead-lettered"
        await owned.complete()
        return "completed"

    async def sample(self, at: datetime) -> None:
        """Take one, as the console does."""
        ended = sum(self.ended, Counter[str]())
        rates = {outcome: ended[outcome] / 60 for outcome in ("completed", "retried", "dead-lettered")}
        self.samples.append(Sample(at, await self.queue.counts(), sum(self.started) / 60, rates))


async def last_keys(hour: Hour, now: datetime) -> None:
    """One key that is shown alone: it was given up, and is to be tried again."""
    spec = json.dumps({"spec": {"replicas": 3, "image": "registry.example/web:1.7", "ports": [8080, 9090]}}).encode()
    await hour.queue.queue(KEY, Options(priority=9, payload=spec, meta=TRACE))
    [owned] = (await hour.queue.lease(LeaseRequest(1, 100))).started
    await owned.dead_letter("HTTP 503: no answer from the API server\nafter 5 attempts in 12 minutes")
    await hour.queue.queue(KEY, Options(not_before=now + timedelta(minutes=9), payload=spec, meta=TRACE))
    await hour.queue.configure(Configuration(concurrency=LIMIT))
    await hour.sample(now)


class Drawn(Watched):
    """A queue whose last hour is given."""

    hour: Sequence[Sample] = ()

    async def watch(self) -> None:
        """Nothing is added to it."""
        for sample in self.hour:
            self.history.add(sample)
        up, last = timedelta(hours=31), self.hour[-1]
        running = last.counts.in_progress if last.counts is not None else 0
        self.standings = [Standing("dispatcher-7f9c:8091", running, LIMIT, up, last.per_second)]


async def shoot(browser: Browser, base: str) -> None:
    """Draw every picture."""
    for name, page_of, width, scheme in SHOTS:
        context = await browser.new_context(viewport={"width": width, "height": 700}, color_scheme=scheme)
        page = await context.new_page()
        await page.goto(f"{base}/q/builds{page_of}")
        await page.screenshot(path=FOLDER / f"console-{name}.png")
        await context.close()


async def main() -> None:
    """Draw them all into docs/images."""
    FOLDER.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    clock = FakeClock(int((now - timedelta(hours=1)).timestamp() * 1_000_000))
    queue = open_queue("memory://?name=builds", clock=clock, owner="dispatcher-7f9c")
    async with queue, open_queue("memory://?name=mail") as mail:
        hour = Hour(queue, clock)
        await hour.pass_by(now)
        await last_keys(hour, now)
        Drawn.hour = hour.samples
        settings = ConsoleSettings(trace_link="https://traces.example/{trace_id}")
        queues: Mapping[str, FullQueue] = {"builds": queue, "mail": mail}
        with mock.patch("workqueue.web.console.app.Watched", Drawn):
            console = Console(queues, settings)
        async with console, http_server(console.app, "127.0.0.1", 0) as port, chromium() as browser:
            await shoot(browser, f"http://127.0.0.1:{port}")


if __name__ == "__main__":
    asyncio.run(main())

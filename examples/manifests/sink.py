"""A CloudEvents sink on loopback: where the error events of this example go."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

Event = dict[str, Any]


@asynccontextmanager
async def event_sink(on_event: Callable[[Event], None]) -> AsyncIterator[str]:
    """Serve on a free port of 127.0.0.1, hand each event's data to `on_event`; yields the URL to send to."""

    async def receive(request: web.Request) -> web.Response:
        on_event(json.loads(await request.read()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/", receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/"
    finally:
        await runner.cleanup()

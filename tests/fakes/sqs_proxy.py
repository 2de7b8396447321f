"""A proxy before an SQS server that does what the real service does now and then, and moto never: fail single entries.

It speaks the JSON protocol. Entries that fail are taken out of the request and added to the answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

__all__ = ["SQSProxy", "proxied"]

Entry = dict[str, Any]


class SQSProxy:
    """What passes, and what is to fail.

    `fail(operation, which)` fails these places of each batch of an operation from then on: `{0: True}` is the sender's
    fault, `{0: False}` the service's. `answer(operation, status, code)` answers whole requests, as often as `times`.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.url = ""
        self.seen: list[tuple[str, Entry]] = []
        """Every request: its operation and its JSON, as it came in."""
        self._failing: dict[str, Callable[[Sequence[Entry]], dict[int, bool]]] = {}
        self._answers: dict[str, list[tuple[int, str]]] = {}

    def fail(self, operation: str, which: Callable[[Sequence[Entry]], dict[int, bool]]) -> None:
        self._failing[operation] = which

    def mend(self, operation: str) -> None:
        self._failing.pop(operation, None)

    def answer(self, operation: str, status: int, code: str, times: int = 1) -> None:
        self._answers.setdefault(operation, []).extend([(status, code)] * times)

    def requests(self, operation: str) -> list[Entry]:
        return [body for name, body in self.seen if name == operation]

    async def handle(self, request: web.Request) -> web.Response:
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        body: Entry = json.loads(await request.read() or b"{}")
        self.seen.append((operation, json.loads(json.dumps(body))))
        if self._answers.get(operation):
            status, code = self._answers[operation].pop(0)
            return _json({"__type": f"com.amazonaws.sqs#{code}", "message": "on purpose"}, status)
        failed = self._take_out(operation, body)
        if failed and not body["Entries"]:
            return _json({"Successful": [], "Failed": failed})
        status, answer = await self._forward(request, body)
        if failed:
            answer.setdefault("Failed", []).extend(failed)
        return _json(answer, status)

    def _take_out(self, operation: str, body: Entry) -> list[Entry]:
        which = self._failing.get(operation)
        if which is None or "Entries" not in body:
            return []
        places = which(body["Entries"])
        failed = [
            {"Id": body["Entries"][place]["Id"], "SenderFault": fault, "Code": "OnPurpose", "Message": "on purpose"}
            for place, fault in places.items()
        ]
        body["Entries"] = [entry for place, entry in enumerate(body["Entries"]) if place not in places]
        return failed

    async def _forward(self, request: web.Request, body: Entry) -> tuple[int, Any]:
        headers = {name: value for name, value in request.headers.items() if name not in ("Host", "Content-Length")}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.upstream + request.path, data=json.dumps(body), headers=headers) as answer,
        ):
            text = await answer.text()
            return answer.status, json.loads(text) if text else {}


@asynccontextmanager
async def proxied(upstream: str) -> AsyncIterator[SQSProxy]:
    """A proxy before `upstream`, until the block ends."""
    proxy = SQSProxy(upstream)
    app = web.Application(client_max_size=4 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        await runner.cleanup()


def _json(body: Any, status: int = 200) -> web.Response:
    return web.json_response(body, status=status, content_type="application/x-amz-json-1.0")

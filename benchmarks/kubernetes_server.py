"""An API server for `benchmarks.kubernetes` that does nothing but send bytes which it has made before.

So a bare list beside it is as fast as it can be. GET /emit?count=&rate= sends events on the open watch. GET
/gap?changed=N ends it with a 410, after which the next list has N changed objects.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from aiohttp import web

PAGE = 500
LIST_VERSION = "2000000"


def pod(number: int, version: str) -> dict[str, Any]:
    """A pod as kubectl shows a small one: 2.3 KB of JSON, a quarter of it managedFields."""
    name = f"web-{number // 100}-{number:06d}"
    fields: dict[str, Any] = {
        f"f:{each}": {".": {}, f"f:{each}-value": {}} for each in ("env", "image", "name", "ports", "resources")
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": f"team-{number % 50}",
            "uid": f"{number:08x}-0000-4000-8000-000000000000",
            "resourceVersion": version,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": f"{number // 100:08x}", "tier": "front"},
            "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"web-{number // 100}", "uid": "u"}
            ],
            "managedFields": [
                {
                    "manager": each,
                    "operation": "Update",
                    "apiVersion": "v1",
                    "time": "2026-01-01T00:00:00Z",
                    "fieldsV1": fields,
                }
                for each in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "nodeName": f"node-{number % 200}",
            "containers": [
                {
                    "name": each,
                    "image": f"registry.example.com/{each}:1.2.3",
                    "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    "env": [{"name": f"VARIABLE_{place}", "value": "some value"} for place in range(4)],
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                }
                for each in ("server", "proxy")
            ],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": each, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
                for each in ("Initialized", "Ready", "ContainersReady", "PodScheduled")
            ],
            "podIP": "10.0.0.1",
        },
    }


def encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


class Server:
    def __init__(self, objects: int) -> None:
        self.objects = [encoded(pod(number, str(number + 1))) for number in range(objects)]
        self.pages: dict[int, bytes] = {}
        self.watch: web.StreamResponse | None = None
        self.begun, self.ended = asyncio.Event(), asyncio.Event()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/api/v1":
            resources = [{"name": "pods", "kind": "Pod", "namespaced": True}]
            return web.Response(body=encoded({"resources": resources}))
        if request.path == "/emit":
            return await self.emit(int(request.query["count"]), float(request.query["rate"]))
        if request.path == "/gap":
            return await self.gap(int(request.query["changed"]))
        if "watch" in request.query:
            return await self.watched(request)
        return web.Response(body=self.page(int(request.query.get("continue") or 0)))

    def page(self, start: int) -> bytes:
        if start not in self.pages:
            more = {"continue": str(start + PAGE)} if start + PAGE < len(self.objects) else {}
            metadata = encoded({"resourceVersion": LIST_VERSION, **more})
            items = b",".join(self.objects[start : start + PAGE])
            self.pages[start] = b'{"kind":"PodList","metadata":' + metadata + b',"items":[' + items + b"]}"
        return self.pages[start]

    async def watched(self, request: web.BaseRequest) -> web.StreamResponse:
        watch, ended = self.watch, self.ended = web.StreamResponse(), asyncio.Event()
        await watch.prepare(request)
        self.begun.set()
        try:
            await ended.wait()
        finally:
            if self.watch is watch:
                self.begun.clear()
        return watch

    async def emit(self, count: int, rate: float) -> web.Response:
        """Send events at an even pace; each says in an annotation when it was sent."""
        await self.begun.wait()
        assert self.watch is not None
        events = [self.event(number) for number in range(count)]
        began = time.monotonic()
        for number, (head, tail) in enumerate(events):
            due = began + number / rate
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            await self.watch.write(head + str(time.monotonic_ns()).encode() + tail)
        return web.Response(body=encoded({"seconds": time.monotonic() - began}))

    def event(self, number: int) -> tuple[bytes, bytes]:
        """An event, without the time at which it is sent."""
        place = number % len(self.objects)
        changed = self.objects[place].replace(b'"resourceVersion":"', b'"resourceVersion":"9%07d' % number, 1)
        changed = changed.replace(b'"annotations":{', b'"annotations":{"sent":"NOW",', 1)
        head, _, tail = (b'{"type":"MODIFIED","object":' + changed + b"}\n").partition(b"NOW")
        return head, tail

    async def gap(self, changed: int) -> web.Response:
        for number in range(changed):
            self.objects[number] = encoded(pod(number, f"8{number:07d}"))
        self.pages.clear()
        for start in range(0, len(self.objects), PAGE):
            self.page(start)
        await self.begun.wait()
        assert self.watch is not None
        await self.watch.write(b'{"type":"ERROR","object":{"kind":"Status","code":410,"message":"too old"}}\n')
        self.begun.clear()
        self.ended.set()
        return web.Response(body=b"{}")


async def main(objects: int) -> None:
    server = Server(objects)
    for start in range(0, objects, PAGE):
        server.page(start)
    # A watch ends with its client, so that events are not sent to one that has gone.
    runner = web.ServerRunner(web.Server(server.handle, access_log=None, handler_cancellation=True))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

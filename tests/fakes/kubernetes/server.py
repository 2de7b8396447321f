"""A fake Kubernetes API server: a real HTTP server with the semantics that controllers lean on.

    async with KubernetesServer() as server:    # server.url, server.create(...), server.faults, server.asked
    with KubernetesServer().in_thread() as server:   # for programs that run beside the test

It has resource versions, 409 on conflicts, lists in pages, watches with bookmarks, 410 once it was compacted,
finalizers, the status subresource, selectors, tokens, permissions, and faults. Not emulated, and refused: strategic
merge patches, watch-list streaming, tables, protobuf. What it refuses a client does not use.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from tests.fakes.kubernetes.faults import Asked, Fault, Plan
from tests.fakes.kubernetes.selectors import matches
from tests.fakes.kubernetes.store import RESOURCES, Body, Refusal, Resource, Store, Stored, gone
from tests.fakes.kubernetes.watch import Stream, event_line, hang_up

LIST_PARAMS = {"limit", "continue", "labelSelector", "fieldSelector", "resourceVersion", "resourceVersionMatch"}
WATCH_PARAMS = {"watch", "allowWatchBookmarks", "timeoutSeconds", "labelSelector", "fieldSelector", "resourceVersion"}
WRITE_PARAMS = {"fieldManager", "force", "propagationPolicy", "fieldValidation"}
IN_METADATA = {"labels", "annotations", "ownerReferences", "finalizers"}
VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class KubernetesServer:
    """The fake, listening on loopback while it is entered; what it stores outlives `stop` and `start`.

    Attributes:
        url: its address.
        store: the data.
        faults: what is to go wrong; append `Fault`s.
        token: when set, requests without it are answered 401.
        authority: the file of its authority's certificate, for the kubeconfig.
        tls: when set, it speaks HTTPS from the next `start` on.
        forbidden: (verb, resource) pairs that are answered 403.
        expired_in_stream: answer a watch from too old a revision with an ERROR event, as kube-apiserver does, instead
            of the status 410 that some proxies and aggregated servers send.
    """

    def __init__(self, resources: Sequence[Resource] = RESOURCES) -> None:
        self.url = ""
        self.store = Store()
        self.plan = Plan()
        self.resources = list(resources)
        self.token = ""
        self.authority: Path | None = None
        self.tls: ssl.SSLContext | None = None
        self.forbidden: set[tuple[str, str]] = set()
        self.expired_in_stream = True
        self._port = 0
        self._runner: web.ServerRunner | None = None
        self._snapshots: dict[str, list[Stored]] = {}
        self._watches: set[asyncio.Event] = set()
        self._bookmarks = 0

    @property
    def faults(self) -> list[Fault]:
        return self.plan.faults

    @property
    def asked(self) -> list[Asked]:
        return self.plan.asked

    # Running

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen, on the same port as before."""
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=0.05)
        await self._runner.setup()
        options: Any = {"backlog": 1024, "reuse_address": True, "ssl_context": self.tls}
        await web.TCPSite(self._runner, "127.0.0.1", self._port, **options).start()
        self._port = self._runner.addresses[0][1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """Hang up on everybody and refuse connections; the data stay."""
        self.cut_watches()
        if self._runner is not None:
            await self._runner.cleanup()

    @contextlib.contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Serve from a thread with an event loop of its own."""
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="fake-kubernetes", daemon=True)
        thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self.start(), loop).result(30)
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self.stop(), loop).result(30)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    def kubeconfig(self) -> str:
        """A kubeconfig file for this server, as JSON, which is YAML."""
        user = {"token": self.token} if self.token else {}
        cluster = {"server": self.url} | ({"certificate-authority": str(self.authority)} if self.authority else {})
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "fake", "cluster": cluster}],
                "users": [{"name": "fake", "user": user}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                "current-context": "fake",
            }
        )

    # What tests do to it

    def resource(self, kind: str) -> Resource:
        return next(resource for resource in self.resources if resource.kind == kind)

    def create(self, kind: str, name: str, namespace: str = "default", **fields: Any) -> Body:
        """Create an object; `labels`, `annotations`, `ownerReferences` and `finalizers` go into its metadata."""
        metadata = {
            n: fields.pop(n) for n in tuple(fields) if n in ("labels", "annotations", "ownerReferences", "finalizers")
        }
        resource = self.resource(kind)
        body = {"metadata": {**metadata, "name": name}, **fields}
        return self.store.create(resource, namespace if resource.namespaced else "", body).body

    def touch(self, kind: str, name: str, namespace: str = "default", **labels: str) -> Body:
        """Change an object: set these labels, or else a counter among its annotations."""
        resource, key = self.resource(kind), (namespace, name)
        body = json.loads(self.store.get(resource, key).raw)
        extra = labels or {"touched": body["metadata"]["resourceVersion"]}
        field = "labels" if labels else "annotations"
        body["metadata"][field] = {**body["metadata"].get(field, {}), **extra}
        return self.store.update(resource, key, body).body

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self.store.delete(self.resource(kind), (namespace, name), {})

    def read(self, kind: str, name: str, namespace: str = "default") -> Body:
        return self.store.get(self.resource(kind), (namespace, name)).body

    def names(self, kind: str) -> list[str]:
        return ["/".join(filter(None, key)) for key, _ in self.store.listed(self.resource(kind), "")]

    def compact(self) -> None:
        """As etcd's compaction: what is older is answered 410, lists under way included."""
        self.store.compact()
        self._snapshots.clear()

    def bookmark(self) -> None:
        """Send a bookmark on every watch that allows them."""
        self._bookmarks += 1
        for wake in tuple(self.store.subscribers):
            wake()

    def cut_watches(self) -> None:
        """End every watch, as a server does that is about to stop."""
        for ended in tuple(self._watches):
            ended.set()
        for wake in tuple(self.store.subscribers):
            wake()

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watches)

    # Requests

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            self._authenticate(request)
            found = self._discovery(request.path)
            if found is not None:
                return _json(found)
            return await self._on_resource(request)
        except Refusal as refusal:
            headers = {"Retry-After": str(refusal.retry_after)} if refusal.retry_after is not None else {}
            return _json(refusal.status, refusal.code, headers)

    def _authenticate(self, request: web.BaseRequest) -> None:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            raise Refusal(401, "Unauthorized", "Unauthorized")

    def _discovery(self, path: str) -> Body | None:
        root, *rest = path.strip("/").split("/")
        if (root, len(rest)) not in (("api", 1), ("apis", 2)):
            return None
        version = "/".join(rest)
        known = [resource for resource in self.resources if resource.api_version == version]
        if not known:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
        listed = [{"name": r.plural, "kind": r.kind, "namespaced": r.namespaced, "verbs": verbs} for r in known]
        listed += [{**each, "name": f"{each['name']}/status", "verbs": ["get"]} for each in listed]
        return {"kind": "APIResourceList", "groupVersion": version, "resources": listed}

    def _understood(self, request: web.BaseRequest) -> tuple[Resource, Asked]:
        root, *rest = request.path.strip("/").split("/")
        api_version, rest = ("/".join(rest[:2]), rest[2:]) if root == "apis" else (rest[0], rest[1:])
        namespace, rest = (rest[1], rest[2:]) if rest[0] == "namespaces" and len(rest) > 2 else ("", rest)
        plural, name, subresource = [*rest, "", ""][:3]
        for resource in self.resources:
            if (resource.api_version, resource.plural) == (api_version, plural):
                break
        else:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        query = dict(request.query)
        verb = VERBS.get(request.method) or ("get" if name else "watch" if query.get("watch") else "list")
        return resource, Asked(verb, plural, namespace, name, subresource, query)

    async def _on_resource(self, request: web.BaseRequest) -> web.StreamResponse:
        resource, asked = self._understood(request)
        fault = self.plan.take(asked)
        if fault is not None and fault.hold is not None:
            await fault.hold.wait()
        if fault is not None and fault.drop == "before":
            return hang_up(request)
        if fault is not None and fault.status:
            raise fault.refusal()
        self._authorize(resource, asked)
        _check_query(asked)
        if asked.verb == "watch":
            return await self._watch(request, resource, asked, fault)
        answer = await self._carry_out(request, resource, asked)
        if fault is not None and fault.drop == "after":
            return hang_up(request)
        return web.Response(body=fault.garbage) if fault is not None and fault.garbage else answer

    def _authorize(self, resource: Resource, asked: Asked) -> None:
        if (asked.verb, asked.resource) in self.forbidden:
            where = f' in the namespace "{asked.namespace}"' if asked.namespace else " at the cluster scope"
            message = (
                f'{resource.full_name} is forbidden: User "system:serviceaccount:default:workqueue" cannot '
                f'{asked.verb} resource "{asked.resource}" in API group "{resource.group}"{where}'
            )
            raise Refusal(403, "Forbidden", message)

    async def _carry_out(self, request: web.BaseRequest, resource: Resource, asked: Asked) -> web.Response:
        if asked.verb == "list":
            return self._list(resource, asked)
        body = json.loads(await request.read() or b"{}")
        key = (asked.namespace, asked.name)
        if asked.verb == "create":
            if resource.status:
                body.pop("status", None)
            return _object(self.store.create(resource, asked.namespace, body), HTTPStatus.CREATED)
        if asked.verb == "patch":
            return self._patch(request, resource, asked, body)
        if asked.verb == "update":
            return _object(self.store.update(resource, key, body, subresource=asked.subresource))
        if asked.verb == "delete":
            return _object(self.store.delete(resource, key, body.get("preconditions", {})))
        return _object(self.store.get(resource, key))

    def _patch(self, request: web.BaseRequest, resource: Resource, asked: Asked, body: Body) -> web.Response:
        key = (asked.namespace, asked.name)
        kind = request.content_type
        if kind == "application/apply-patch+yaml":
            if "fieldManager" not in asked.query:
                raise Refusal(400, "BadRequest", "fieldManager is required for apply patch")
            if key not in self.store.of(resource):
                return _object(self.store.create(resource, asked.namespace, body), HTTPStatus.CREATED)
        elif kind != "application/merge-patch+json":
            raise Refusal(415, "UnsupportedMediaType", f"the fake does not emulate {kind}")
        old = self.store.get(resource, key)
        patched = merge_patch(json.loads(old.raw), body)
        if "resourceVersion" not in body.get("metadata", {}):
            patched["metadata"]["resourceVersion"] = old.metadata["resourceVersion"]
        return _object(self.store.update(resource, key, patched, subresource=asked.subresource))

    # Lists

    def _list(self, resource: Resource, asked: Asked) -> web.Response:
        limit = int(asked.query.get("limit") or 0)
        if token := asked.query.get("continue", ""):
            revision, start, rest = self._continued(resource, asked, token)
        else:
            revision, start, rest = self.store.revision, 0, self._selected(resource, asked)
        page = rest[start : start + limit] if limit else rest[start:]
        metadata: Body = {"resourceVersion": str(revision)}
        left = len(rest) - start - len(page)
        if left:
            metadata |= {"continue": self._token(revision, start + limit, rest), "remainingItemCount": left}
        head = json.dumps({"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata})
        items = b",".join(stored.raw for stored in page)
        return web.Response(body=head[:-1].encode() + b',"items":[' + items + b"]}", content_type="application/json")

    def _selected(self, resource: Resource, asked: Asked) -> list[Stored]:
        labels, fields = asked.query.get("labelSelector", ""), asked.query.get("fieldSelector", "")
        listed = self.store.listed(resource, asked.namespace)
        return [stored for _, stored in listed if matches(stored, labels, fields)]

    def _token(self, revision: int, start: int, rest: list[Stored]) -> str:
        snapshot = str(revision)
        self._snapshots.setdefault(snapshot, rest)
        return base64.urlsafe_b64encode(json.dumps([snapshot, start]).encode()).decode()

    def _continued(self, resource: Resource, asked: Asked, token: str) -> tuple[int, int, list[Stored]]:
        snapshot, start = json.loads(base64.urlsafe_b64decode(token))
        if snapshot not in self._snapshots:
            selected = self._selected(resource, asked)
            inconsistent = self._token(self.store.revision, start, selected)
            raise gone(
                "The provided continue parameter is too old to display a consistent list result.",
                metadata={"continue": inconsistent},
            )
        return int(snapshot), start, self._snapshots[snapshot]

    # Watches

    async def _watch(
        self, request: web.BaseRequest, resource: Resource, asked: Asked, fault: Fault | None
    ) -> web.StreamResponse:
        since = int(asked.query.get("resourceVersion") or self.store.revision)
        expired = gone(f"too old resource version: {since} ({self.store.compacted + 1})")
        if since < self.store.compacted and not self.expired_in_stream:
            raise expired
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        ended, changed = asyncio.Event(), asyncio.Event()
        self._watches.add(ended)
        self.store.subscribers.add(wake := _waker(changed))
        try:
            await response.prepare(request)
            if since < self.store.compacted:
                await response.write(event_line("ERROR", expired.status))
                return response
            stream = Stream(self, request, response, asked, fault)
            async with asyncio.timeout(float(asked.query.get("timeoutSeconds") or 1800)):
                await stream.run(resource, since, changed, ended)
        except (TimeoutError, ConnectionError):
            return response
        finally:
            self._watches.discard(ended)
            self.store.subscribers.discard(wake)
        return response

    @property
    def bookmarks(self) -> int:
        return self._bookmarks


def _waker(event: asyncio.Event) -> Any:
    loop = asyncio.get_running_loop()

    def wake() -> None:
        loop.call_soon_threadsafe(event.set)

    return wake


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def _check_query(asked: Asked) -> None:
    known = {"list": LIST_PARAMS, "watch": WATCH_PARAMS, "get": set[str]()}.get(asked.verb, WRITE_PARAMS)
    if unknown := set(asked.query) - known:
        raise Refusal(400, "BadRequest", f"the fake does not know the parameters {sorted(unknown)} of {asked.verb}")


def _json(body: Body, code: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=code, body=json.dumps(body).encode(), content_type="application/json", headers=headers)


def _object(stored: Stored, code: int = 200) -> web.Response:
    return web.Response(status=code, body=stored.raw, content_type="application/json")

"""An API server whose authority is replaced, as in a cluster that rotates it: no watch needs a restart."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.fakes.kubernetes.server import KubernetesServer
from tests.support.dispatching import until
from tests.support.kubernetes import connected
from tests.support.tls import Authority
from workqueue.sources.kubernetes import UnreachableError
from workqueue.sources.kubernetes.api import API


def certified_by(authority: Authority) -> ssl.SSLContext:
    pair = authority.issue("127.0.0.1")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


def secured(folder: Path, authority: Authority) -> KubernetesServer:
    server = KubernetesServer()
    server.authority = folder / "service-account.pem"
    server.authority.write_bytes(authority.file.read_bytes())
    server.tls = certified_by(authority)
    return server


async def certified_anew(server: KubernetesServer, authority: Authority) -> None:
    await server.stop()
    server.tls = certified_by(authority)
    await server.start()


async def ask(api: API) -> object:
    return await api.request("GET", "/api/v1")


async def test_an_authority_that_is_replaced_is_followed(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    async with secured(tmp_path, old) as server, connected(server) as api:
        await ask(api)
        await certified_anew(server, new)
        with pytest.raises(UnreachableError):
            await ask(api)
        assert server.authority is not None
        server.authority.write_bytes(new.file.read_bytes())

        assert await ask(api)


async def test_a_request_that_is_under_way_when_the_authority_is_replaced_goes_on(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "old"), Authority(tmp_path, "new")
    async with secured(tmp_path, old) as server, connected(server) as api:
        watch = api.lines("/api/v1/namespaces/default/configmaps", {"watch": "true"}, silence=30)
        seen = asyncio.ensure_future(anext(watch))
        await until(lambda: server.watches > 0)
        assert server.authority is not None
        server.authority.write_bytes(old.file.read_bytes() + new.file.read_bytes())
        await ask(api)
        server.create("ConfigMap", "a")

        assert b'"a"' in (await seen)[0]
        await watch.aclose()


async def test_an_authority_that_is_half_written_is_not_followed_yet(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with secured(tmp_path, authority) as server, connected(server) as api:
        assert server.authority is not None
        server.authority.write_bytes(authority.file.read_bytes()[:100])

        assert await ask(api)

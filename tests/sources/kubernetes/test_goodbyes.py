"""An API server that does not answer TLS's goodbye, as behind a line that is cut: no connection outlives its client."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.fakes.kubernetes.server import KubernetesServer
from tests.sources.kubernetes.test_authority import certified_by
from tests.support.tls import Authority
from workqueue.sources.kubernetes.api import API

BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n"


class SilentServer:
    """Takes one request, sends what `begun` is of an answer, and then only notices the end of the connection."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder)
        self._tls = certified_by(authority)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self.begun = b""
        self.asked, self.left = threading.Event(), threading.Event()
        fake = KubernetesServer()
        fake.url, fake.authority = f"https://127.0.0.1:{self._listener.getsockname()[1]}", authority.file
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(fake.kubeconfig(), encoding="utf-8")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # it would wait for a client that never came
        self._thread.join()
        self._listener.close()

    def _serve(self) -> None:
        connection = self._tls.wrap_socket(self._listener.accept()[0], server_side=True)
        connection.recv(65536)
        connection.sendall(self.begun)
        with socket.socket(fileno=connection.detach()) as bare:  # below TLS a goodbye is bytes, and not the end
            self.asked.set()
            with contextlib.suppress(ConnectionResetError):
                while bare.recv(65536):
                    pass
        self.left.set()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SilentServer]:
    with SilentServer(tmp_path) as silent:
        yield silent


async def asking(api: API) -> None:
    await api.request("GET", "/api/v1")


async def watching(api: API) -> None:
    async for _ in api.lines("/api/v1/pods", {"watch": "true"}, silence=60):
        pass


@pytest.mark.parametrize(("begun", "call"), [(b"", asking), (BEGUN, watching)], ids=["a request", "a watch"])
async def test_what_is_cancelled_leaves_no_connection_that_waits_for_a_goodbye(
    server: SilentServer, begun: bytes, call: Callable[[API], Coroutine[Any, Any, None]]
) -> None:
    server.begun = begun
    async with await API.connect(server.kubeconfig) as api:
        under_way = asyncio.create_task(call(api))
        assert await asyncio.to_thread(server.asked.wait, 30)
        under_way.cancel()
        await asyncio.wait([under_way])

    assert await asyncio.to_thread(server.left.wait, 10)  # asyncio itself gives up after 30 seconds

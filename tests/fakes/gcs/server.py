"""A strict Google Cloud Storage emulator: a real HTTP server with the semantics of the JSON API.

In the test's process, on a thread of its own or on the running loop:

    with GcsServer() as server:            # server.url, server.store, server.faults, server.log, server.clock
    async with GcsServer() as server:

or as a process (see `process.py`): `python -m tests.fakes.gcs.server --port 0 --bucket wq` prints its URL.

Stricter than the real service on purpose: unknown query parameters, misplaced preconditions and non-string metadata are
refused. Not emulated, and refused where a client could lean on them: versions, soft-deleted objects, resumable uploads,
compose, ACLs, If-Match headers; also no byte ranges and no crc32c.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.fakes.gcs.admin import PREFIX, Admin
from tests.fakes.gcs.clock import ServerClock
from tests.fakes.gcs.errors import ApiError, injected, not_emulated
from tests.fakes.gcs.faults import Fault, FaultPlan
from tests.fakes.gcs.log import RequestLog
from tests.fakes.gcs.requests import Call, understand, with_upload
from tests.fakes.gcs.service import Reply, Service, refuse
from tests.fakes.gcs.store import Store, WriteLimit
from tests.fakes.gcs.tokens import TokenDesk

try:
    import uvloop
except ImportError:  # Windows and PyPy have none; the emulator is only slower there
    new_event_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_event_loop = uvloop.new_event_loop

API = ("/storage/", "/upload/", "/download/")
# HTTP entity tags are preconditions too: ignoring them silently would prove nothing about a client that sends them.
REFUSED_HEADERS = ("If-Match", "If-None-Match", "X-HTTP-Method-Override")
STARTUP_TIMEOUT_S = 30.0
MAX_BODY_BYTES = 64 << 20


class GcsServer:
    """The emulator, listening on `host` while it is entered.

    Args:
        buckets: created at the start.
        port: 0 picks a free one.
        host: the address to listen on.
        clock: the server's time; the local wall clock by default.

    Attributes:
        url: what goes into `STORAGE_EMULATOR_HOST`; set while entered.
        store: the data, with `put`, `fill`, `find`, `snapshot`, `denied`, `write_limit`, …
        faults: the fault plan; `server.faults.add(Fault("copy", status=503))`.
        log: request counts and the list of requests.
        tokens: the credentials desk; `server.tokens.required = "secret"` switches authentication on.
    """

    def __init__(
        self,
        buckets: Sequence[str] = ("wq",),
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        clock: ServerClock | None = None,
    ) -> None:
        self.url = ""
        self.clock = clock or ServerClock()
        self.store = Store(self.clock)
        self.faults = FaultPlan()
        self.log = RequestLog()
        self.tokens = TokenDesk(self.clock)
        self._service = Service(self.store)
        self._admin = Admin(self.store, self.faults, self.log, self.tokens, self.clock)
        self._address = host, port
        self._failures: list[Exception] = []
        self._runner: web.ServerRunner | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        for name in buckets:
            self.store.create_bucket(name)

    @property
    def host_port(self) -> str:
        """`127.0.0.1:PORT`, for settings that take no scheme."""
        return self.url.removeprefix("http://")

    @property
    def requests(self) -> Counter[str]:
        """How many requests of each operation arrived since the last reset."""
        return self.log.requests

    def reset(self) -> None:
        """Forget counts, log and faults; keep the objects."""
        self.log.reset()
        self.faults.clear()

    def limit_writes(self, per_second: float = 1.0, burst: int = 1) -> None:
        """From now on answer 429 to more than `per_second` mutations of one object, by the server's clock."""
        self.store.write_limit = WriteLimit(per_second, burst)

    # Starting and stopping

    async def __aenter__(self) -> Self:
        server = web.Server(self._handle, request_factory=make_request, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.05)
        await runner.setup()
        await web.TCPSite(runner, *self._address, backlog=1024).start()
        host, port = runner.addresses[0][:2]
        self.url = self._service.root = f"http://{host}:{port}"
        self._runner = runner
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()
        self._raise_failures(error)

    def __enter__(self) -> Self:
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="gcs-emulator", daemon=True)
        self._thread.start()
        if not started.wait(STARTUP_TIMEOUT_S) or not self.url:
            raise RuntimeError("the GCS emulator did not start") from next(iter(self._failures), None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._raise_failures(error)

    def _run(self, started: threading.Event) -> None:
        loop = self._loop = new_event_loop()
        try:
            loop.run_until_complete(self.__aenter__())
            started.set()
            loop.run_forever()
        except OSError as error:
            self._failures.append(error)
        finally:
            started.set()
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    async def _close(self) -> None:
        self.faults.clear()
        assert self._runner is not None
        await self._runner.cleanup()

    def _raise_failures(self, error: BaseException | None) -> None:
        # A hook that failed, or a bug of the emulator, must not pass as a 500 that the client under test got over.
        if self._failures and error is None:
            raise ExceptionGroup("inside the GCS emulator", self._failures)

    # Requests

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        body = await request.read() if request.body_exists else b""
        raw_path = request.raw_path
        try:
            if raw_path.startswith(API):
                reply = await self._storage(request, raw_path, body)
            elif raw_path.startswith(PREFIX):
                reply = self._admin.answer(request.method, raw_path, body)
            else:
                path = raw_path.partition("?")[0]
                content_type, answer = self.tokens.answer(request.method, path, request.headers, body)
                reply = Reply(200, answer, content_type, {"Metadata-Flavor": "Google"})
        except ApiError as refusal:
            reply = refuse(refusal)
        except Exception as failure:
            self._failures.append(failure)
            raise
        return self._response(reply)

    async def _storage(self, request: web.BaseRequest, raw_path: str, body: bytes) -> Reply:
        headers = request.headers
        self.tokens.check(headers.get("Authorization"))
        for name in REFUSED_HEADERS:
            if name in headers:
                raise not_emulated(f"The header {name}")
        call = understand(request.method, raw_path)
        if call.operation == "insert":
            call = with_upload(call, headers.get("Content-Type", ""), body)
        self.log.arrived(call)
        fault = self.faults.take(call)
        if fault is None:
            reply = self._service.carry_out(call, body)
            self.log.finished(call, reply.status, "")
            return reply
        return await self._troubled(request, call, fault, body)

    async def _troubled(self, request: web.BaseRequest, call: Call, fault: Fault, body: bytes) -> Reply:
        """Serve a request that a planned fault hits; a request dropped before processing is logged with status 0."""
        await fault.act("before", call)
        if fault.drop == "before":
            reply = Reply(0)
        elif fault.status:
            reply = refuse(injected(fault.status, call.bucket, call.name))
        else:
            reply = self._service.carry_out(call, body)
            await fault.act("after", call)
        self.log.finished(call, reply.status, fault.label)
        if fault.drop and request.transport is not None:
            request.transport.abort()
        return reply

    def _response(self, reply: Reply) -> web.Response:
        headers = {"Date": self.clock.http_date(), "Content-Type": reply.content_type, **reply.headers}
        return web.Response(status=reply.status, body=reply.body, headers=headers)


def make_request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
    """A request whose body may be larger than aiohttp's default of 1 MiB."""
    loop = asyncio.get_running_loop()
    return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=MAX_BODY_BYTES)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the emulator until SIGTERM, SIGINT or the end of standard input, so that it never outlives its parent."""
    parser = argparse.ArgumentParser(prog="python -m tests.fakes.gcs.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bucket", action="append", help="created at the start; may be repeated (default: wq)")
    parser.add_argument("--forever", action="store_true", help="do not stop when standard input ends")
    options = parser.parse_args(arguments)
    server = GcsServer(options.bucket or ["wq"], port=options.port, host=options.host)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(serve(server, until_eof=not options.forever))


async def serve(server: GcsServer, *, until_eof: bool) -> None:
    """Print the URL, then serve until a signal comes."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if until_eof:
        loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or loop.call_soon(stop.set))
    async with server:
        sys.stdout.write(server.url + "\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    main()

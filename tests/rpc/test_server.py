"""What every gRPC server of ours has: health, reflection, limits, an address of its own, and a way to end."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.support.dispatching import opened
from tests.support.grpc import channel_to, client_of, on_loop, refused, stub_of
from workqueue import KeyStatus
from workqueue.access.addresses import join_host_port
from workqueue.access.security import ServerSecurity
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import InvalidSettingError
from workqueue.rpc.channel import Address
from workqueue.rpc.grpc_limits import GrpcLimits
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.receiver import Receiver, receive
from workqueue.rpc.server import GrpcServer, Listen
from workqueue.rpc.wire import SERVICE


@on_loop
async def test_reflection_tells_the_services_and_their_schema() -> None:
    async with receive(opened(MemoryQueue()), port=0) as server, channel_to(server) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        ]
        listed, schema = [answer async for answer in stub.ServerReflectionInfo(iter(asked))]

    names = {service.name for service in listed.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert len(schema.file_descriptor_response.file_descriptor_proto) >= 1


@on_loop
async def test_a_port_in_use_is_refused_instead_of_shared() -> None:
    async with receive(opened(MemoryQueue()), port=0) as server:
        with pytest.raises(InvalidSettingError, match=f"cannot listen on 127.0.0.1:{server.port}: .*in use"):
            await receive(opened(MemoryQueue()), port=server.port).__aenter__()


@on_loop
async def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(InvalidSettingError, match=r"cannot listen on 192\.0\.2\.1:0: .*assign"):
        await receive(
            opened(MemoryQueue()), host="192.0.2.1", port=0, security=ServerSecurity(insecure=True)
        ).__aenter__()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_plaintext_on_a_public_address_is_refused_unless_asked_for(host: str) -> None:
    with pytest.raises(InvalidSettingError, match="TLS certificate and key, or insecure"):
        Listen(host, 0)

    assert Listen(host, 0, ServerSecurity(insecure=True)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_tls(host: str) -> None:
    assert Listen(host, 0).host == host


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(InvalidSettingError, match=f"port={port}"):
        Listen(port=port)


def test_an_ipv6_address_is_written_in_brackets() -> None:
    address = Address.parse("grpc://[::1]:80")

    assert (address.host, str(address)) == ("::1", "grpc://[::1]:80")
    assert join_host_port("::", 0) == "[::]:0"


@on_loop
async def test_a_request_larger_than_the_limit_is_not_read() -> None:
    queue = opened(MemoryQueue(max_payload=10**6))
    listen = Listen(port=0, limits=GrpcLimits(message_bytes=1000))
    async with GrpcServer(Receiver(queue), listen) as server, stub_of(server) as stub:
        await stub.Process(pb.ProcessRequest(key="small", payload=b"x" * 900))
        error = await refused(stub.Process(pb.ProcessRequest(key="large", payload=b"x" * 1100)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await queue.counts()).queued == 1


@on_loop
async def test_headers_larger_than_the_limit_are_refused() -> None:
    queue = opened(MemoryQueue())
    async with receive(queue, port=0) as server, stub_of(server) as stub:
        error = await refused(stub.Process(pb.ProcessRequest(key="k"), metadata=(("x-large", "x" * 70_000),)))

    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await queue.counts()).queued == 0


@on_loop
async def test_interceptors_see_every_call() -> None:
    seen: list[str] = []

    class Observer(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in its stubs only
        async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            seen.append(handler_call_details.method)
            return await continuation(handler_call_details)

    server = GrpcServer(Receiver(opened(MemoryQueue())), Listen(port=0), interceptors=[Observer()])
    async with server, client_of(server) as client:
        await client.queue("k")

    assert seen == [f"/{SERVICE}/Process"]


@on_loop
async def test_waiting_ends_when_the_server_is_told_to_stop() -> None:
    async with receive(opened(MemoryQueue()), port=0) as server:
        waiting = asyncio.ensure_future(server.wait())
        asyncio.get_running_loop().call_soon(server.stop)
        await waiting


@on_loop
async def test_an_enqueue_under_way_is_answered_before_the_server_ends() -> None:
    entered, proceed = asyncio.Event(), asyncio.Event()

    class SlowQueue(MemoryQueue):
        async def queue(self, key: str, *args: Any) -> None:
            entered.set()
            await proceed.wait()
            await super().queue(key, *args)

    queue = opened(SlowQueue())
    server = receive(queue, port=0)
    await server.__aenter__()
    async with stub_of(server) as stub:
        call = asyncio.ensure_future(stub.Process(pb.ProcessRequest(key="k")))
        await entered.wait()
        leaving = asyncio.ensure_future(server.__aexit__(None, None, None))
        proceed.set()
        await asyncio.gather(call, leaving)

    assert (await queue.get("k")).status is KeyStatus.QUEUED

"""Certificates, keys and authorities that are replaced while servers and clients run: the next connection uses them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.dispatching import opened
from tests.support.grpc import client_of
from tests.support.tls import Authority, Pair
from workqueue.access.security import ClientSecurity, ServerSecurity, ServerTLS
from workqueue.access.tokens import ListedTokens, TokenFile
from workqueue.attempt import Attempt
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import StoreUnavailableError, StoreUnusableError
from workqueue.rpc.call_stream import CallStream
from workqueue.rpc.channel import Address, open_channel
from workqueue.rpc.pb import workqueue_pb2 as pb
from workqueue.rpc.receiver import receive
from workqueue.rpc.reconciler import serve
from workqueue.rpc.stub import stub_on

REFUSED = (StoreUnavailableError, StoreUnusableError)


class Two:
    """Two authorities, of which `file` holds one at a time, and a server certificate of the first."""

    def __init__(self, folder: Path) -> None:
        self.first, self.second = Authority(folder, "first"), Authority(folder, "second")
        self.server = self.first.issue("127.0.0.1")
        self.file = folder / "accepted.pem"
        self.file.write_bytes(self.first.file.read_bytes())

    def mine(self, authority: Authority) -> Pair:
        return authority.issue("me@example.com", "mine")

    def server_tls(self) -> ServerTLS:
        return ServerTLS(self.server.certificate, self.server.key, self.file)


@pytest.fixture
def two(tmp_path: Path) -> Two:
    return Two(tmp_path)


async def test_a_grpc_server_takes_clients_of_another_authority_once_its_file_names_it(two: Two) -> None:
    pair = two.mine(two.second)
    security = ClientSecurity(two.first.file, pair.certificate, pair.key)
    listening = receive(opened(MemoryQueue()), port=0, security=ServerSecurity(two.server_tls()))
    async with listening as server:
        async with client_of(server, scheme="grpcs", security=security) as client:
            with pytest.raises(REFUSED):
                await client.queue("k")

        two.file.write_bytes(two.second.file.read_bytes())

        async with client_of(server, scheme="grpcs", security=security) as client:  # the other waits to connect again
            await client.queue("k")


async def test_a_grpc_client_shows_its_new_certificate(two: Two) -> None:
    pair = two.mine(two.second)
    security = ClientSecurity(two.first.file, pair.certificate, pair.key)
    listening = receive(opened(MemoryQueue()), port=0, security=ServerSecurity(two.server_tls()))
    async with listening as server, client_of(server, scheme="grpcs", security=security) as client:
        with pytest.raises(REFUSED):
            await client.queue("k")

        two.mine(two.first)

        await client.queue("k")


async def test_a_grpc_client_trusts_its_new_authority(two: Two) -> None:
    two.file.write_bytes(two.second.file.read_bytes())
    served = ServerSecurity(ServerTLS(two.server.certificate, two.server.key))
    security = ClientSecurity(two.file)
    async with (
        receive(opened(MemoryQueue()), port=0, security=served) as server,
        client_of(server, scheme="grpcs", security=security) as client,
    ):
        with pytest.raises(REFUSED):
            await client.queue("k")

        two.file.write_bytes(two.first.file.read_bytes())

        await client.queue("k")


async def test_calls_of_a_stream_end_where_they_began_when_the_certificates_change(two: Two) -> None:
    came, leave = asyncio.Event(), asyncio.Event()

    async def callback(key: str, attempt: Attempt) -> None:
        if key == "slow":
            came.set()
            await leave.wait()

    security = ClientSecurity(two.first.file)
    served = ServerSecurity(ServerTLS(two.server.certificate, two.server.key))
    async with (
        serve(callback, port=0, security=served) as server,
        open_channel(Address("127.0.0.1", server.port, tls=True), security) as channel,
    ):
        stub = stub_on(channel)
        stream = CallStream(stub.ProcessMany)
        await stream.open()
        slow = asyncio.create_task(stream.process(pb.ProcessRequest(key="slow"), 30))
        await came.wait()

        two.first.file.write_bytes(two.first.file.read_bytes() + b"\n")
        await stub.Process(pb.ProcessRequest(key="on another channel"))
        leave.set()

        assert await slow == pb.ProcessResponse()
        await stream.abort()


async def test_tokens_on_both_ends_of_one_connection_are_followed(tmp_path: Path) -> None:
    accepted, mine = tmp_path / "accepted", tmp_path / "mine"
    accepted.write_text("old\n")
    mine.write_text("old")
    served = ServerSecurity(tokens=ListedTokens(accepted))
    async with (
        receive(opened(MemoryQueue()), port=0, security=served) as server,
        client_of(server, security=ClientSecurity(token=TokenFile(mine))) as client,
    ):
        await client.queue("k")
        accepted.write_text("new\n")
        with pytest.raises(StoreUnusableError, match="not one of those"):
            await client.queue("k")

        mine.write_text("new")

        await client.queue("k")

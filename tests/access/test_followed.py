"""Certificates, keys and authorities that are replaced while servers and clients run: the next connection uses them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.dispatching import opened
from tests.support.grpc import client_of
from tests.support.tls import Authority, Pair
from workqueue.access.security import ClientSecurity, ServerSecurity, ServerTLS
from workqueue.access.tokens import ListedTokens, TokenFile
from workqueue.backends.memory.backend import MemoryQueue
from workqueue.errors import StoreUnavailableError, StoreUnusableError
from workqueue.rpc.receiver import receive

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

"""Names to addresses that may be connected to.

What the resolver returns is what is connected to. Were a name looked up once to judge it and once to connect, it could
stand for another address the second time.

Each lookup has a thread of its own. An event loop has a few threads for lookups, in which names whose servers are dead
would keep those of all other targets waiting.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from aiohttp.abc import AbstractResolver, ResolveResult

from dispatcher.relay.target import AllowedTargets

__all__ = ["GuardedResolver", "LookUp", "addresses_of"]

LookUp = Callable[[str, int], list[str]]
"""Finds the addresses of a host for a port; may block, and raises OSError where there is none."""


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of `host`, as this machine resolves it.

    Raises:
        OSError: there is none, or nobody knows.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [str(place[0]) for *_, place in found]


class GuardedResolver(AbstractResolver):
    """What a connector of aiohttp resolves names with.

    Args:
        allowed: judges addresses.
        look_up: finds them.
    """

    def __init__(self, allowed: AllowedTargets, look_up: LookUp = addresses_of) -> None:
        self._allowed = allowed
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host` that may be connected to.

        Raises:
            OSError: it has none, or none of them may be.
        """
        found = list(dict.fromkeys(await _in_a_thread(self._look_up, host, port)))
        allowed = [address for address in found if self._allowed.may_connect(address, port)]
        if not allowed:
            shown = ", ".join(found) or "nothing"
            why = f"{host} stands for {shown}, which needs an entry of its own among the allowed targets"
            raise PermissionError(errno.EACCES, why)
        return [_resolved(host, port, address) for address in allowed]

    async def close(self) -> None:
        """Nothing is open."""


def _resolved(host: str, port: int, address: str) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=flags)


async def _in_a_thread(look_up: LookUp, host: str, port: int) -> list[str]:
    """What `look_up` finds; the thread is a daemon, so that the end of a process does not wait for a dead server."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[str]] = loop.create_future()

    def answer(addresses: list[str] | OSError) -> None:
        if found.done():  # nobody waits any more
            return
        if isinstance(addresses, OSError):
            found.set_exception(addresses)
        else:
            found.set_result(addresses)

    def run() -> None:
        try:
            addresses: list[str] | OSError = look_up(host, port)
        except OSError as error:
            addresses = error
        except UnicodeError as error:  # a name that cannot be one
            addresses = OSError(f"{host} cannot be looked up: {error}")
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(answer, addresses)

    threading.Thread(target=run, name=f"relay-lookup-{host}", daemon=True).start()
    return await found

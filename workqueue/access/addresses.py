"""Which addresses a host stands for, and sockets that listen on all of them: the same for gRPC and HTTP."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket

from workqueue.errors import InvalidSettingError

__all__ = ["addresses_of", "is_host", "is_loopback", "join_host_port", "listening_sockets"]

_EVERYWHERE = {"", "0.0.0.0", "::"}
_BACKLOG = 1024
_LONGEST_NAME = 253  # RFC 1035, 2.3.4, as text without the last dot
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_TRIES = 10  # for a port that is free on every address


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine only; a name other than localhost is not taken to be."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_host(host: str) -> bool:
    """Whether `host` can be one: an address without brackets, or a name that DNS can have, in any script (IDNA)."""
    if ":" in host:
        try:
            return bool(ipaddress.IPv6Address(host))
        except ValueError:
            return False
    try:
        name = host.removesuffix(".").encode("idna")
        name.decode("idna")  # what begins with xn-- must stand for something
    except UnicodeError:
        return False
    labels = name.decode().split(".")
    return len(name) <= _LONGEST_NAME and all(_LABEL.fullmatch(label) for label in labels)


def join_host_port(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def addresses_of(host: str) -> list[str]:
    """The addresses to listen on for `host`: all of a name's; for everywhere one that takes IPv4 and IPv6.

    Raises:
        InvalidSettingError: no address is known for the name.
    """
    if host == "localhost":  # whatever a resolver makes of it
        return ["127.0.0.1", "::1"]
    if host in _EVERYWHERE:
        return ["::" if socket.has_dualstack_ipv6() else "0.0.0.0"]
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise InvalidSettingError(f"cannot listen on {host}: no address is known for it") from error
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of `host`, all on one port; 0 = one that is free on every address.

    Raises:
        InvalidSettingError: an address cannot be listened on; the message says why not.
    """
    addresses = addresses_of(host)
    for tries_left in reversed(range(_TRIES)):
        sockets: list[socket.socket] = []
        try:
            for address in addresses:
                _listen(sockets, address, port or (_port_of(sockets[0]) if sockets else 0))
            if not sockets:
                raise OSError(errno.EADDRNOTAVAIL, "none of its addresses is this machine's")
        except OSError as error:
            for each in sockets:
                each.close()
            if port or error.errno != errno.EADDRINUSE or not tries_left:
                where = join_host_port(host, port)
                raise InvalidSettingError(f"cannot listen on {where}: {error.strerror or error}") from error
        else:
            return sockets
    raise AssertionError("the last try returns or raises")


def _listen(sockets: list[socket.socket], address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    both = address == "::" and socket.has_dualstack_ipv6()
    try:
        sockets.append(socket.create_server((address, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both))
    except OSError as error:
        # localhost may have an IPv6 address on a machine that has none.
        if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) or ":" not in address or address == "::":
            raise


def _port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])

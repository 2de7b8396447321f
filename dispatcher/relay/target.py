"""Where a request goes: what its header names, and whether that may be called (pure).

A name is allowed by the list of targets. The address that it stands for is judged when a connection is made, because a
name may stand for another address by then. Addresses at which a machine answers itself, or its cloud answers for it,
are allowed only by an entry of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from workqueue.access.addresses import is_host, join_host_port
from workqueue.errors import InvalidSettingError

__all__ = ["ANY_TARGET", "AllowedTargets", "Target"]

_PORTS = {"http": 80, "https": 443}

_Address = IPv4Address | IPv6Address
_Network = IPv4Network | IPv6Network

# Where clouds answer for a machine outside the link-local range: AWS over IPv6, Alibaba, Azure, Oracle.
_METADATA = frozenset(map(ip_address, ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")))
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Target:
    """Scheme, host and port of a server.

    Args:
        scheme: http or https.
        host: in lower case; an IPv6 address without brackets.
        port: 1 to 65535.
    """

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that `http://host:port`, `https://host` or `host:port` names.

        Raises:
            ValueError: it names none; the message says what it takes.
        """
        try:
            parts = urlsplit(text if "://" in text else f"http://{text}")
            port, host = parts.port, (parts.hostname or "").removesuffix(".")
        except ValueError:
            raise ValueError(_TAKES) from None
        beside = parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment
        if parts.scheme not in _PORTS or beside or port == 0 or not _is_target(host):
            raise ValueError(_TAKES)
        return cls(parts.scheme, host, port or _PORTS[parts.scheme])

    @property
    def name(self) -> str:
        """`host:port`: what keys begin with, and what metrics and logs call it."""
        return join_host_port(self.host, self.port)

    @property
    def address(self) -> _Address | None:
        """The address that the host is, if it is one and no name."""
        return _address(self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.name}"


_TAKES = "it takes http://host:port or https://host:port, without a path"


def _is_target(host: str) -> bool:
    """Whether a request can be sent there and nowhere else: stricter than `is_host`, since strangers name targets."""
    if ":" in host:
        return "%" not in host and _address(host) is not None  # an interface of this machine is no part of a target
    if re.fullmatch(r"[0-9.]+|0x.*", host):  # some resolvers read 2130706433 and 127.1 as addresses
        return _address(host) is not None
    return host.isascii() and not host.endswith(".") and is_host(host)


@lru_cache(maxsize=1024)
def _address(text: str) -> _Address | None:
    """The address that `text` is; kept, since each call to a target asks five times, a twentieth of its CPU."""
    try:
        return ip_address(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the list: a name, `*.` and the end of names, or a network; with a port or for every port."""

    name: str
    network: _Network | None
    port: int | None

    @classmethod
    def parse(cls, text: str) -> _Entry:
        network = _network(text)
        if network is not None:
            return cls("", network, None)
        host, port = _split(text)
        if (network := _network(host)) is not None:
            return cls("", network, port)
        if not _is_target(host.removeprefix("*.")):
            raise InvalidSettingError(
                f"{text!r} is no target; it takes a host, host:port, *.domain, address or network"
            )
        return cls(host, None, port)

    def takes(self, target: Target) -> bool:
        if self.port not in (None, target.port):
            return False
        if self.network is not None:
            return target.address is not None and target.address in self.network
        return target.host == self.name or (self.name.startswith("*.") and target.host.endswith(self.name[1:]))

    def opens(self, address: _Address, port: int) -> bool:
        """Whether it is about `address` by itself, not because it happens to lie in something large."""
        if self.port not in (None, port):
            return False
        if self.name == "localhost":
            return address.is_loopback
        return self.network is not None and _is_guarded(self.network) and address in self.network


def _split(text: str) -> tuple[str, int | None]:
    found = re.fullmatch(r"\[?(.*?)\]?(?::(\d{1,5}))?", text.lower())
    if found is None or (found[2] is not None and not 0 < int(found[2]) <= 65535):
        raise InvalidSettingError(f"{text!r}: a port is a number from 1 to 65535")
    return found[1], int(found[2]) if found[2] else None


def _network(text: str) -> _Network | None:
    try:
        return ip_network(text, strict=False)
    except ValueError:
        return None


class AllowedTargets:
    """The targets that may be called.

    Args:
        entries: hosts, `host:port`, `*.domain`, addresses and networks.
        any_target: whatever is asked for; the entries are not looked at.

    Raises:
        InvalidSettingError: an entry is none.
    """

    def __init__(self, entries: Iterable[str], *, any_target: bool = False) -> None:
        self._entries = [_Entry.parse(entry) for entry in entries]
        self._any = any_target
        self._judged = lru_cache(maxsize=1024)(self._judge)  # the list stays as it is

    def why_refused(self, target: Target) -> str:
        """Why `target` may not be called; '' if it may, by what is known before a name is resolved."""
        return "" if self._any else self._judged(target)

    def _judge(self, target: Target) -> str:
        if not any(entry.takes(target) for entry in self._entries):
            return f"{target.name} is not among the allowed targets"
        if target.address is not None and not self.may_connect(str(target.address), target.port):
            return f"{target.name} needs an entry of its own among the allowed targets"
        return ""

    def may_connect(self, address: str, port: int) -> bool:
        """Whether a connection to `address` may be made for a target that is allowed by its name."""
        if self._any:
            return True
        meant = _meant(ip_address(address.partition("%")[0]))
        return not _is_guarded(meant) or any(entry.opens(meant, port) for entry in self._entries)


ANY_TARGET = AllowedTargets((), any_target=True)
"""Whatever is asked for; for tests and for networks where nothing can be reached that must not be."""


def _is_guarded(place: _Address | _Network) -> bool:
    if place.is_loopback or place.is_link_local or place.is_unspecified or place.is_multicast or place.is_reserved:
        return True
    if isinstance(place, IPv4Address | IPv6Address):
        return place in _METADATA
    return place.num_addresses == 1 and place.network_address in _METADATA


def _meant(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address leads to, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address

"""A gRPC channel from an address, and why one cannot be made, in words an operator can act on."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

import grpc

from workqueue.access.addresses import is_host, is_loopback, join_host_port
from workqueue.access.security import ClientSecurity
from workqueue.clock import Clock
from workqueue.errors import InvalidSettingError
from workqueue.options import check_type
from workqueue.rpc.bearer import adding_token
from workqueue.rpc.credentials import channel_credentials
from workqueue.rpc.grpc_limits import MAX_HEADER_BYTES, MAX_MESSAGE_BYTES
from workqueue.rpc.renewed_channel import RenewedChannel
from workqueue.safe_text import shown_url

__all__ = ["Address", "Diagnosis", "Probe", "diagnose", "open_channel"]

_SCHEMES = {"grpc": (False, None), "grpcs": (True, None), "http": (False, 80), "https": (True, 443)}
_ALLOWED = "grpc://host:port, grpcs://host:port (TLS), http://host or https://host"
_PROBE_SECONDS = 2.0
_DIAGNOSIS_LASTS_US = 10_000_000

_OPTIONS: tuple[tuple[str, Any], ...] = (
    # Calls are spread over every address of the name, as with a headless service; pick_first would use one of them.
    ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
    # A server that comes back is found within a second or two, not after the default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.min_reconnect_backoff_ms", 5000),
    # A peer that vanished without a word is noticed. Go servers allow a ping every five minutes, not more often.
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Room for whatever text a Go reconciler puts into its trailers, where it is twice and may be escaped.
    ("grpc.max_metadata_size", MAX_HEADER_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_HEADER_BYTES),
)


@dataclass(frozen=True, slots=True)
class Address:
    """Where a gRPC server is."""

    host: str
    port: int
    tls: bool

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `grpc://host:port`, `grpcs://host:port`, `http://host[:80]` or `https://host[:443]`.

        Raises:
            InvalidSettingError: it is none of these.
        """
        check_type("an address", text, str, _ALLOWED)
        try:
            parts = urlsplit(text)
            tls, default = _SCHEMES[parts.scheme]
            port = parts.port or default  # raises ValueError beyond 65535
        except (KeyError, ValueError):
            raise InvalidSettingError(
                f"{shown_url(text)!r} is no address of a gRPC server; it takes {_ALLOWED}"
            ) from None
        if not is_host(parts.hostname or "") or port is None or _has_more(parts):
            raise InvalidSettingError(f"{shown_url(text)!r} is not just a host and a port; it takes {_ALLOWED}")
        return cls(parts.hostname or "", port, tls)

    def __str__(self) -> str:
        return f"{'grpcs' if self.tls else 'grpc'}://{join_host_port(self.host, self.port)}"


def _has_more(parts: SplitResult) -> bool:
    return parts.path not in ("", "/") or bool(parts.query or parts.fragment or parts.username)


def open_channel(
    address: Address, security: ClientSecurity, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> grpc.aio.Channel:
    """A channel to `address`, connected when first used; close it.

    Args:
        address: where to.
        security: whom to trust, and what to show.
        max_message_bytes: the largest answer accepted.

    Raises:
        InvalidSettingError: `security` does not fit the address, or its files cannot be read.
    """
    security.check_address(address.host, tls=address.tls)
    target = join_host_port(address.host, address.port)
    options = [*_OPTIONS, ("grpc.max_receive_message_length", max_message_bytes)]
    if is_loopback(address.host):
        options.append(("grpc.enable_http_proxy", 0))
    interceptors: Any = adding_token(security.token) if security.token is not None else None  # typed as opaque
    if not address.tls:
        return grpc.aio.insecure_channel(target, options, interceptors=interceptors)

    def encrypted(credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(target, credentials, options, interceptors=interceptors)

    credentials = channel_credentials(security)
    return RenewedChannel(credentials, encrypted) if security.files else encrypted(credentials.current())


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Why a connection fails: `reason` is '' if it does not; `permanent` if only an operator can change it."""

    reason: str = ""
    permanent: bool = False


async def diagnose(address: Address, security: ClientSecurity) -> Diagnosis:
    """Find out by connecting, once and for two seconds at most, why calls to `address` fail.

    gRPC says so only in the text of its errors, and the text of half of them names the wrong layer.
    """
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            return await (_try_tls(address, security.ssl_context()) if address.tls else _try_plaintext(address))
    except ssl.SSLCertVerificationError as error:
        return Diagnosis(f"its certificate is not trusted: {error.verify_message}", permanent=True)
    except ssl.SSLEOFError:  # a balancer without a server behind it does that too
        return Diagnosis("it hangs up during the TLS handshake")
    except ssl.SSLError as error:
        return Diagnosis(f"the TLS handshake fails: {error.reason or error}", permanent=True)
    except socket.gaierror:
        return Diagnosis(f"no address is known for the host {address.host}")
    except TimeoutError:
        return Diagnosis("it does not answer")
    except OSError as error:
        # asyncio words its own strerror around the address; several failed addresses have no errno in common.
        return Diagnosis(os.strerror(error.errno) if error.errno else str(error) or type(error).__name__)


async def _try_tls(address: Address, context: ssl.SSLContext) -> Diagnosis:
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    with contextlib.closing(writer), contextlib.suppress(TimeoutError):
        # With TLS 1.3 a server refuses a missing client certificate only after our side of the handshake is done: Go
        # says so, which raises, others just hang up. A server that is content waits, or greets us.
        async with asyncio.timeout(_PROBE_SECONDS / 4):
            if not await reader.read(1):
                return Diagnosis("it hangs up after the TLS handshake; it may want a client certificate, or another")
    return Diagnosis()


async def _try_plaintext(address: Address) -> Diagnosis:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # whoever it is: does it speak TLS at all?
    context.set_alpn_protocols(["h2"])
    _, writer = await asyncio.open_connection(address.host, address.port)
    with contextlib.closing(writer):
        try:
            await writer.start_tls(context)
        except OSError:  # it does not, which is right for this address
            return Diagnosis()
    return Diagnosis("it speaks TLS: say grpcs:// or https://", permanent=True)


class Probe:
    """Diagnoses one address, once for all who ask together, and not again within ten seconds."""

    def __init__(self, address: Address, security: ClientSecurity, clock: Clock) -> None:
        self._address = address
        self._security = security
        self._clock = clock
        self._lock = asyncio.Lock()
        self._found = Diagnosis()
        self._valid_until_us = 0

    async def find(self) -> Diagnosis:
        """What `diagnose` finds, or found lately."""
        async with self._lock:
            if self._clock.steady_us() >= self._valid_until_us:
                self._found = await diagnose(self._address, self._security)
                self._valid_until_us = self._clock.steady_us() + _DIAGNOSIS_LASTS_US
        return self._found

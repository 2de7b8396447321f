"""A TCP proxy between a client and a real server: loses chosen answers, breaks off, is slow, rewrites, speaks TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

__all__ = ["TcpProxy"]

HOST = "127.0.0.1"


class TcpProxy:
    """Forwards what comes to `port` to a server on loopback.

    Args:
        target: the server's port.
        certificate: PEM files of a certificate and its key, to speak TLS with clients.
        rewrite: changes what the server says, piece by piece.
    """

    def __init__(
        self,
        target: int,
        certificate: tuple[str, str] | None = None,
        rewrite: Callable[[bytes], bytes] = lambda answer: answer,
    ) -> None:
        self._target = target
        self._rewrite = rewrite
        self._tls: ssl.SSLContext | None = None
        if certificate is not None:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._connections: set[socket.socket] = set()
        self._lost: list[bytes] = []
        self._last: list[bytes] = []
        self.lost_answers = 0
        self.is_refusing = False
        self.hides_ends = False
        """Whether clients are not told that the server closed a connection, as by a firewall that has forgotten it."""
        self.delay_seconds = 0.0
        """How long each piece of an answer is held up."""
        self.accepted = 0

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def lose_answer_to(self, request: str) -> None:
        """The next request with this text in it is carried out, but its answer never arrives: the connection breaks."""
        self._lost.append(request.encode())

    def refuse_after(self, request: str) -> None:
        """As `lose_answer_to`, and nobody may connect again until `is_refusing` is reset."""
        self._last.append(request.encode())
        self.lose_answer_to(request)

    def cut(self) -> None:
        """Break every connection."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Refuse new connections and break those there are."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                self.accepted += 1
                if self.is_refusing:
                    client.close()
                    continue
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(
            OSError
        ):  # a handshake that fails, or a server that is down, is the client's to notice
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            server = socket.create_connection((HOST, self._target))
            self._connections |= {client, server}
            losing = threading.Event()
            threading.Thread(target=self._answer, args=(server, client, losing), daemon=True).start()
            self._forward(client, server, losing)
        client.close()

    def _forward(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while request := client.recv(65536):
                for chosen in [chosen for chosen in self._lost if chosen in request]:
                    self._lost.remove(chosen)
                    self.is_refusing = chosen in self._last
                    losing.set()
                server.sendall(request)
        self._end(client, server)

    def _answer(self, server: socket.socket, client: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while answer := server.recv(65536):
                if losing.is_set():
                    self.lost_answers += 1
                    break
                time.sleep(self.delay_seconds)
                client.sendall(self._rewrite(answer))
        if not self.hides_ends:
            self._end(client, server)

    def _end(self, *pair: socket.socket) -> None:
        for connection in pair:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
            self._connections.discard(connection)

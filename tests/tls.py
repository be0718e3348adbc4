"""Servers with TLS on loopback, proxies in front of them, and the authorities behind both."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from tests.network import ACCEPTED, Peer, Server

trustme = pytest.importorskip("trustme")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Authority:
    """A certificate authority, which no system knows.

    Attributes:
        bundle: Its own certificate, in a file, as REQUESTS_CA_BUNDLE takes it.
    """

    def __init__(self, directory: Path) -> None:
        self._authority = trustme.CA()
        self.bundle = directory / f"{id(self)}.pem"
        self._authority.cert_pem.write_to_path(str(self.bundle))

    def server_context(self, *names: str) -> ssl.SSLContext:
        """What a server with these names speaks TLS by."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*names).configure_cert(context)
        return context


class TlsServer(Server):
    """A server that speaks TLS, and accepts all that it is sent."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(self._greet)
        self.url = self.url.replace("http://127.0.0.1", "https://localhost")

    def _greet(self, peer: Peer) -> None:
        with speak_tls(peer, self._context):
            while peer.request():
                peer.send(ACCEPTED)


@contextmanager
def speak_tls(peer: Peer, context: ssl.SSLContext) -> Iterator[None]:
    """Speak TLS for as long as this lasts."""
    with context.wrap_socket(peer._socket, server_side=True) as peer._socket:
        peer._server._connections.append(peer._socket)
        yield


def tunnel(peer: Peer) -> None:
    """Be a proxy: connect to loopback by CONNECT."""
    request = peer.request()
    assert request is not None
    port = int(request.head.split()[1].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as server:
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        _pump_both_ways(peer._socket, server)


def tunnel_within_tls(context: ssl.SSLContext) -> Callable[[Peer], None]:
    """Be a proxy that itself speaks TLS."""

    def behave(peer: Peer) -> None:
        with speak_tls(peer, context):
            tunnel(peer)

    return behave


def socks(peer: Peer) -> None:
    """Be a proxy of SOCKS5, without a password: https://www.rfc-editor.org/rfc/rfc1928."""
    peer._socket.recv(257)
    peer.send(b"\5\0")
    asked = peer._socket.recv(262)
    (port,) = struct.unpack(">H", asked[-2:])
    with socket.create_connection(("127.0.0.1", port)) as server:
        peer.send(b"\5\0\0\1\0\0\0\0\0\0")
        _pump_both_ways(peer._socket, server)


def _pump_both_ways(one: socket.socket, other: socket.socket) -> None:
    thread = threading.Thread(target=_pump, args=(one, other), daemon=True)
    thread.start()
    _pump(other, one)
    thread.join(5)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # Either side may close first.
        while received := source.recv(65_536):
            target.sendall(received)
    for each in (source, target):
        with suppress(OSError):  # Closed already.
            each.shutdown(socket.SHUT_RDWR)

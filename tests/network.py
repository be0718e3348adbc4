"""Servers on raw sockets, which do what no HTTP server would, and a look at the noise of timing."""

from __future__ import annotations

import gzip
import json
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

KEY = "dk_" + "a1" * 32

ACCEPTED = b"HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Request:
    """One HTTP request, as it came over the wire.

    Attributes:
        head: The request line and the headers.
        body: The body, still compressed.
        connection: The number of its connection, from 0 up.
        at: When it had arrived, in seconds on the monotonic clock.
    """

    def __init__(self, head: str, body: bytes, connection: int) -> None:
        self.head = head
        self.body = body
        self.connection = connection
        self.at = time.monotonic()

    def header(self, name: str) -> str | None:
        for line in self.head.split("\r\n")[1:]:
            found, _, value = line.partition(":")
            if found.lower() == name.lower():
                return value.strip()
        return None

    @property
    def batch(self) -> dict[str, Any]:
        compressed = self.header("Content-Encoding") == "gzip"
        batch: dict[str, Any] = json.loads(gzip.decompress(self.body) if compressed else self.body)
        return batch

    @property
    def event_ids(self) -> list[str]:
        return [event["event_id"] for event in self.batch["events"]]


class Peer:
    """The server's end of one connection."""

    def __init__(self, server: Server, connection: socket.socket, number: int) -> None:
        self.number = number
        self._server = server
        self._socket = connection
        self._received = b""

    def request(self) -> Request | None:
        """The next request; None once the client has closed the connection."""
        while b"\r\n\r\n" not in self._received:
            if not self._receive():
                return None
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        request = Request(head.decode("latin-1"), b"", self.number)
        length = int(request.header("Content-Length") or 0)
        while len(self._received) < length:
            if not self._receive():
                return None
        request.body, self._received = self._received[:length], self._received[length:]
        with self._server.changed:
            self._server.requests.append(request)
            self._server.changed.notify_all()
        return request

    def _receive(self) -> bool:
        received = self._socket.recv(65_536)
        self._received += received
        return bool(received)

    def send(self, answer: bytes) -> None:
        self._socket.sendall(answer)

    def drip(self, answer: bytes, pause_s: float = 0.01) -> None:
        """Send byte by byte."""
        for byte in answer:
            self.send(bytes([byte]))
            time.sleep(pause_s)

    def wait_for_end(self) -> None:
        """Say nothing until either side closes the connection."""
        while self._receive():
            pass

    def reset(self) -> None:
        """Break the connection off with RST."""
        # A linger time of zero makes close() discard the connection instead of ending it in order.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


class Server:
    """A TCP server on loopback that lets ``behave`` do as it likes with each connection.

    Args:
        behave: Called with each connection on a thread of its own; the connection is closed when
            it returns.

    Attributes:
        requests: What has arrived, in order.
        changed: Notified of every request.
    """

    def __init__(self, behave: Callable[[Peer], None]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.requests: list[Request] = []
        self.changed = threading.Condition()
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def wait_for(self, requests: int, timeout_s: float = 5.0) -> list[Request]:
        """The requests, once there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.requests) >= requests, timeout_s)
            return list(self.requests)

    def _accept(self) -> None:
        with suppress(OSError):  # The listener was closed.
            while True:
                connection, _ = self._listener.accept()
                peer = Peer(self, connection, len(self._connections))
                self._connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(peer, connection), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, peer: Peer, connection: socket.socket) -> None:
        with suppress(OSError), connection:  # The client has gone, or the test is over.
            self._behave(peer)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._connections):
            with suppress(OSError):  # Closed already.
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(5)


def silent(peer: Peer) -> None:
    """Accept the connection, read the request, never answer."""
    peer.request()
    peer.wait_for_end()


def dripping_head(peer: Peer) -> None:
    """Answer with a head that never ends."""
    peer.request()
    peer.drip(b"HTTP/1.1 202 Accepted\r\nX-Padding: " + b"a" * 10_000)


def dripping_body(peer: Peer) -> None:
    """Answer with a body that takes for ever."""
    peer.request()
    peer.send(b"HTTP/1.1 202 Accepted\r\nContent-Length: 10000\r\n\r\n")
    peer.drip(b" " * 10_000)


def resetting(peer: Peer) -> None:
    """Break off within the head of the answer."""
    peer.request()
    peer.send(ACCEPTED[:20])
    peer.reset()


def accepting(peer: Peer) -> None:
    """Answer every request with 202."""
    while peer.request():
        peer.send(ACCEPTED)


@contextmanager
def refused_port() -> Iterator[str]:
    """The URL of a port that nobody listens on, nor will as long as this lasts."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


class Metronome:
    """Ticks beside a measurement and says how late the system has let it be: its noise.

    A thread that only sleeps is late when the machine is busy. A measurement during which it was
    late says nothing about what was measured.
    """

    STEP_S = 0.005

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def _tick(self) -> None:
        before = time.perf_counter()
        while not self._stop.wait(self.STEP_S):
            now = time.perf_counter()
            self.worst_s = max(self.worst_s, now - before - self.STEP_S)
            before = now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

"""HTTP/1.1 as Vercel's proxy speaks it with the process: a connection, and an answer on it."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import TYPE_CHECKING

from doow_serverless.local.vercel.invocation import public

if TYPE_CHECKING:
    from typing_extensions import Self


class Connection:
    """A connection to the process, kept alive from request to request."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Answer:
    """An HTTP response, taken apart as it comes.

    Attributes:
        raw: All that came.
        complete: Whether the head and a body of the length that it announces are there.
        open_ended: Whether only the end of the connection would say that the body is complete.
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self._start = 0
        self.raw = bytearray()
        self.status: int | None = None
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.complete = False
        self.open_ended = False
        self.first_byte_s: float | None = None
        self.last_byte_s: float | None = None

    def feed(self, received: bytes) -> None:
        """Take in what has just come."""
        self.last_byte_s = time.monotonic()
        self.raw += received
        self._parse()
        if self.body and self.first_byte_s is None:
            self.first_byte_s = self.last_byte_s

    def append_rest(self, peer: socket.socket) -> None:
        """What has come in since, and belongs to this answer, whether it should be there or not."""
        peer.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            while received := peer.recv(65_536):
                self.feed(received)

    def _parse(self) -> None:
        head, found, rest = bytes(self.raw[self._start :]).partition(b"\r\n\r\n")
        if not found:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        if 100 <= status < 200:
            self._start += len(head) + 4
            self._parse()
            return
        pairs = [line.partition(":") for line in lines]
        self.status = status
        self.headers = public((name, value.strip()) for name, _, value in pairs)
        fields = {name.lower(): value for name, value in self.headers}
        self.open_ended = False
        if self._method == "HEAD" or status in (204, 304):
            self.complete = True
        elif "chunked" in fields.get("transfer-encoding", ""):
            self.body, self.complete = _dechunk(rest)
        elif "content-length" in fields:
            length = int(fields["content-length"])
            self.body, self.complete = rest[:length], len(rest) >= length
        else:
            self.body, self.open_ended = rest, True


def _dechunk(rest: bytes) -> tuple[bytes, bool]:
    """The body so far, and whether the last chunk is there."""
    body = b""
    while True:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            return body, False
        length = int(line.partition(b";")[0], 16)
        if length == 0:
            return body, True
        body += rest[:length]
        if len(rest) < length + 2:
            return body, False
        rest = rest[length + 2 :]

"""The worker's own HTTP server, through which an application that streams gets its requests."""

from __future__ import annotations

import contextlib
import http.client
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doow_serverless.local.azure.invocation import Invocation


@dataclass(frozen=True)
class Reply:
    """What came over the connection.

    Attributes:
        chunks: The body as it arrived, each part with its moment on the monotonic clock.
        complete: Whether the body came to its end, as it does not when its iterator raises.
    """

    status: int
    headers: dict[str, str]
    chunks: list[tuple[float, bytes]]
    complete: bool

    @property
    def body(self) -> bytes:
        """The whole body."""
        return b"".join(chunk for _, chunk in self.chunks)


@dataclass(frozen=True)
class HttpExchange(Reply):
    """A reply, and the invocation that went with it."""

    invocation: Invocation


def fetch(
    server: str,
    method: str,
    path: str,
    *,
    headers: Mapping[str, str],
    body: bytes,
    timeout_s: float,
) -> Reply:
    """Send a request to the worker's server, and take all that it answers."""
    url = urlsplit(server)
    host, port = url.hostname or "", url.port or 80
    _wait_for_listener(host, port, timeout_s)
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        chunks = []
        complete = False
        with contextlib.suppress(http.client.IncompleteRead):
            while chunk := response.read1(65536):
                chunks.append((time.monotonic(), chunk))
            complete = True
    return Reply(response.status, dict(response.getheaders()), chunks, complete)


def _wait_for_listener(host: str, port: int, timeout_s: float) -> None:
    """The worker names its server before that listens."""
    ends_at = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), timeout=timeout_s).close()
        except ConnectionRefusedError:
            if time.monotonic() > ends_at:
                raise
            time.sleep(0.01)
        else:
            return

"""Handler classes on a real server, whose writes to the client are written down, in order."""

from __future__ import annotations

import io
import socket
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar

import doow_serverless as doow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.metering import Trace


class Wire(io.BufferedIOBase):
    """The ``wfile`` under test's feet: notes each write as it goes to the client."""

    def __init__(self, file: Any, trace: Trace) -> None:
        self._file = file
        self._trace = trace

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if not isinstance(data, str):
            self._trace.note("write", bytes(data))
        written: int = self._file.write(data)
        return written

    def fileno(self) -> int:
        number: int = self._file.fileno()
        return number


class Base(BaseHTTPRequestHandler):
    """A handler whose responses are the same at any time of day."""

    trace: ClassVar[Trace | None] = None
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.wire = self.wfile
        if self.trace is not None:
            self.wire = self.wfile = Wire(self.wfile, self.trace)

    def log_message(self, *_: Any) -> None:
        pass

    def version_string(self) -> str:
        return "test"

    def date_time_string(self, timestamp: float | None = None) -> str:
        return "today"

    def head(self, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, handler_class: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler_class)
        self.errors: list[BaseException | None] = []
        self.over = threading.Semaphore(0)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.errors.append(sys.exc_info()[1])

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        self.over.release()


@contextmanager
def serving(handler_class: type[BaseHTTPRequestHandler]) -> Iterator[_Server]:
    """A server on loopback, a thread for each connection."""
    with _Server(handler_class) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def request(method: str = "GET", path: str = "/", **headers: str) -> bytes:
    """One request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "\r\n"]).encode()


def exchange(server: _Server, *requests: bytes) -> bytes:
    """Everything that comes back on one connection, until the server ends it."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(b"".join(requests))
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while received := connection.recv(65_536):
            answer += received
    assert server.over.acquire(timeout=30)
    return answer


def handler_class(do: Callable[[Any], None], method: str = "GET", **attributes: Any) -> type[Base]:
    """A class of which ``do`` handles ``method``."""
    return type("Handler", (Base,), {f"do_{method}": do, **attributes})


def writes(
    do: Callable[[Any], None], trace: Trace, method: str = "GET", **attributes: Any
) -> list[tuple[bytes, int]]:
    """What a tracked handler sent; heads as their first line; with the events accepted by then."""
    cls = doow.tracked(handler_class(do, method, trace=trace, **attributes))
    with serving(cls) as server:
        exchange(server, request(method, Connection="close"))
        assert server.errors == []
    return [
        (data.split(b"\r\n")[0] if data.startswith(b"HTTP/") else data, accepted)
        for what, data, accepted in trace.calls
        if what == "write"
    ]


def as_it_is(cls: Any) -> Any:
    return cls


def in_several_writes(self: Any) -> None:
    doow.track("tokens")
    self.head(200, Content_Length="4")
    self.wfile.write(b"te")
    self.wfile.write(b"")
    self.wfile.write(b"x")
    self.wfile.flush()
    doow.track("more tokens")
    self.wfile.write(b"t")
    doow.track("late")


def no_content(self: Any) -> None:
    doow.track("tokens")
    self.head(204)

"""WSGI applications of every shape, and a server that writes down all that happens, in order."""

from __future__ import annotations

import io
import sys
from collections import deque
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

import doow_serverless as doow
from tests.metering import unmetered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.metering import Trace


TEXT = ("Content-Type", "text/plain")
"""Seconds that Doow takes to answer: what is not held back overtakes it."""


def environ(method: str = "GET", **more: Any) -> dict[str, Any]:
    """What a server tells of a request."""
    return {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        **more,
    }


def call(app: Any, start_response: Any = lambda *_: None, **more: Any) -> Any:
    """What the application returns to a server that takes everything."""
    return app(environ(**more), start_response)


class Server:
    """Serves single requests as PEP 3333 says.

    Args:
        app: The application.
        trace: Where to write down what goes to the client.
        is_eager: Whether the head goes out at ``start_response``, as Vercel's server has it, not
            with the first bytes of the body.
        closes: Whether it calls ``close()``, as it should.
    """

    def __init__(
        self, app: Any, trace: Trace | None = None, *, is_eager: bool = False, closes: bool = True
    ) -> None:
        self._app = app
        self._trace = trace
        self._is_eager = is_eager
        self._closes = closes

    def get(self, method: str = "GET", *, chunks: int | None = None, **more: Any) -> bytes:
        """The response as it goes over the wire; ``chunks``: after so many the client is gone."""
        response = _Response(self._trace, self._is_eager)
        result: Any = None
        try:
            try:
                result = self._app(environ(method, **more), response.start_response)
                for number, chunk in enumerate(result, 1):
                    if chunk:
                        response.write(chunk)
                    if number == chunks:
                        return bytes(response.sent)
                response.end()
            except BaseException as problem:
                response.note("raised", type(problem))
                raise
            finally:
                if self._closes and hasattr(result, "close"):
                    result.close()
        finally:
            response.note("over")
        return bytes(response.sent)


def bare(app: Any, method: str = "GET", **more: Any) -> bytes:
    """The response of an application that is not metered."""
    with unmetered():
        return Server(app).get(method, **more)


class _Response:
    def __init__(self, trace: Trace | None, is_eager: bool) -> None:
        self.sent = bytearray()
        self.note: Callable[..., None] = (lambda *_: None) if trace is None else trace.note
        self._is_eager = is_eager
        self._head: tuple[str, list[tuple[str, str]]] | None = None
        self._is_head_sent = False

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        if exc_info and self._is_head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        assert exc_info or self._head is None, "start_response was called before"
        self._head = (status, list(headers))
        if self._is_eager:
            self._send_head()
        return self.write

    def write(self, chunk: bytes) -> None:
        self._send_head()
        self.note("chunk", chunk)
        self.sent += chunk

    def end(self) -> None:
        self._send_head()
        self.note("end")

    def _send_head(self) -> None:
        if not self._is_head_sent:
            assert self._head is not None, "start_response was not called"
            self._is_head_sent = True
            status, headers = self._head
            self.note("head", status)
            lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers)]
            self.sent += "\r\n".join([*lines, "\r\n"]).encode("latin-1")


# ── applications ───────────────────────────────────────────────────────────────────────────────


class Closing:
    """An iterable, not an iterator, with a ``close()`` that counts its calls and records."""

    def __init__(self, *chunks: bytes, records: str | None = None) -> None:
        self._chunks = chunks
        self._records = records
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield from self._chunks

    def close(self) -> None:
        self.closed += 1
        if self._records is not None:
            doow.track(self._records)


class Stepping:
    """An iterator that is no generator and has no ``close()``; it records when it is exhausted."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = deque(chunks)
        self._is_exhausted = False

    def __iter__(self) -> Stepping:
        return self

    def __next__(self) -> bytes:
        if not self._chunks:
            if not self._is_exhausted:  # Some servers ask again.
                self._is_exhausted = True
                doow.track("at the end")
            raise StopIteration
        return self._chunks.popleft()


def as_list(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("200 OK", [TEXT])
    return [b"some ", b"text"]


def as_tuple(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("200 OK", [TEXT, ("Content-Length", "4")])
    return (b"text",)


def as_empty_list(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("200 OK", [TEXT])
    return []


def as_generator(environ: Any, start_response: Any) -> Any:
    """All of it runs when it is iterated over."""
    start_response("200 OK", [TEXT, ("Content-Length", "9")])
    yield b"some "
    doow.track("tokens")
    yield b"text"
    doow.track("late")


def without_length(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])

    def chunks() -> Iterator[bytes]:
        yield b"some "
        yield b""
        doow.track("tokens")
        yield b"text"

    return chunks()


def as_iterator(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    return Stepping(b"some ", b"text")


def as_iterable(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    return Closing(b"some ", b"text", records="closed")


def as_sized(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("200 OK", [TEXT])
    return deque([b"text"])


def by_write(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [TEXT])
    write(b"some ")
    doow.track("tokens")
    write(b"text")
    return []


def by_write_and_chunks(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [TEXT, ("Content-Length", "9")])
    write(b"some ")
    doow.track("tokens")
    return Stepping(b"te", b"xt")


def as_file(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("200 OK", [TEXT])
    return environ.get("wsgi.file_wrapper", FileWrapper)(io.BytesIO(b"some text"))


def no_content(environ: Any, start_response: Any) -> Any:
    start_response("204 No Content", [])
    doow.track("tokens")
    return Stepping()


def not_modified(environ: Any, start_response: Any) -> Any:
    start_response("304 Not Modified", [("ETag", '"1"')])
    doow.track("tokens")
    return [b""]


def of_no_length(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT, ("Content-Length", "0")])
    doow.track("tokens")
    yield b""


def replacing_its_head(environ: Any, start_response: Any) -> Any:
    # Without a length, which gunicorn would keep.
    start_response("200 OK", [TEXT])
    try:
        raise LookupError("no such customer")
    except LookupError:
        start_response("404 Not Found", [TEXT], sys.exc_info())
    doow.track("tokens")
    return Stepping(b"no such customer")


APPS: dict[str, tuple[Any, str, int]] = {
    app.__name__: (app, method, events)
    for app, method, events in (
        (as_list, "GET", 1),
        (as_tuple, "GET", 1),
        (as_empty_list, "GET", 1),
        (as_generator, "GET", 2),
        (without_length, "GET", 1),
        (as_iterator, "GET", 1),
        (as_iterable, "GET", 1),
        (as_sized, "GET", 1),
        (by_write, "GET", 1),
        (by_write_and_chunks, "GET", 2),
        (as_file, "GET", 1),
        (no_content, "DELETE", 2),
        (not_modified, "GET", 1),
        (of_no_length, "POST", 1),
        (replacing_its_head, "GET", 2),
    )
}
"""Each with a method to call it with, and how many events it records."""

APPS["for HEAD"] = (as_generator, "HEAD", 2)


def site(environ: Any, start_response: Any) -> Any:
    """All of them, by path."""
    app, _, _ = APPS[environ["PATH_INFO"].strip("/")]
    return app(environ, start_response)

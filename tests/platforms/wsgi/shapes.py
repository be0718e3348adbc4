"""WSGI applications of every shape. Vercel's runtime imports this, without our test tools."""

from __future__ import annotations

import io
import sys
from collections import deque
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = ("Content-Type", "text/plain")


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


def as_stream(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT, ("Content-Length", "9")])
    doow.track("tokens")
    return Stepping(b"some ", b"text")


def as_sized_of_two(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("200 OK", [TEXT])
    return deque([b"some ", b"text"])


class ClosingList(list[bytes]):
    """A list of one's own, whose ``close()`` records."""

    def close(self) -> None:
        doow.track("closed")


def as_closing_list(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    doow.track("tokens")
    return ClosingList([b"text"])


def empty(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    doow.track("tokens")
    return iter(())


def empty_of_length(environ: Any, start_response: Any) -> Any:
    """As Flask returns an empty text."""
    start_response("200 OK", [TEXT, ("Content-Length", "0")])
    doow.track("tokens")
    return Closing(b"", records="closed")


def redirect(environ: Any, start_response: Any) -> Any:
    start_response("302 Found", [TEXT, ("Location", "/as_list"), ("Content-Length", "0")])
    doow.track("tokens")
    return Closing(records="closed")


def redirect_without_length(environ: Any, start_response: Any) -> Any:
    start_response("302 Found", [TEXT, ("Location", "/as_list")])
    doow.track("tokens")
    return Closing(records="closed")


def nothing_but_a_close(environ: Any, start_response: Any) -> Any:
    start_response("204 No Content", [("X-Shop", "1")])
    doow.track("tokens")
    return Closing(b"", records="closed")


def unchanged(environ: Any, start_response: Any) -> Any:
    start_response("304 Not Modified", [("ETag", '"1"')])
    doow.track("tokens")
    return Closing(records="closed")


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
        (as_stream, "GET", 2),
        (as_sized_of_two, "GET", 1),
        (as_closing_list, "GET", 2),
        (empty, "GET", 1),
        (empty_of_length, "GET", 2),
        (redirect, "GET", 2),
        (redirect_without_length, "GET", 2),
        (nothing_but_a_close, "GET", 2),
        (unchanged, "GET", 2),
    )
}
"""Each with a method to call it with, and how many events it records."""

APPS["for HEAD"] = (as_generator, "HEAD", 2)
APPS["list for HEAD"] = (as_list, "HEAD", 1)
APPS["stream for HEAD"] = (as_stream, "HEAD", 2)
APPS["file for HEAD"] = (as_file, "HEAD", 1)
APPS["redirect for HEAD"] = (redirect, "HEAD", 2)

CLOSED = [
    "as_iterable", "as_closing_list", "empty_of_length", "redirect", "redirect_without_length",
    "nothing_but_a_close", "unchanged", "redirect for HEAD",
]  # fmt: skip
"""Those that record their last event in ``close()``."""

AFTERWARDS = {
    "as_generator": 1,
    "as_stream": 1,
    "by_write_and_chunks": 1,
    "no_content": 1,
    "for HEAD": 2,
    "stream for HEAD": 1,
    **dict.fromkeys(CLOSED, 1),
}
"""How many events are recorded after the bytes that complete a response."""


def site(environ: Any, start_response: Any) -> Any:
    """All of them, by path."""
    app, _, _ = APPS[environ["PATH_INFO"].strip("/")]
    return app(environ, start_response)


WRAPPED: dict[str, Any] = {"middleware": DoowMiddleware(site), "tracked": doow.tracked(site)}
"""Ways to meter the site."""


def wrapped(environ: Any, start_response: Any) -> Any:
    """The site once for each way, below its name."""
    way, _, environ["PATH_INFO"] = environ["PATH_INFO"].strip("/").partition("/")
    return WRAPPED[way](environ, start_response)

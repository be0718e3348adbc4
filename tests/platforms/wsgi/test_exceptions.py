"""How a WSGI application may fail: at any point, once the events are delivered or forgotten."""

from __future__ import annotations

import io
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper

import pytest

import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware
from tests.metering import Trace, accepted, unmetered
from tests.platforms.wsgi.apps import Server, call
from tests.platforms.wsgi.shapes import TEXT, Closing

if TYPE_CHECKING:
    from collections.abc import Iterator


class Trouble(Exception):
    """What applications raise here."""


# ── exceptions ─────────────────────────────────────────────────────────────────────────────────


def before_its_head(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    raise environ["problem"]


def after_its_head(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    doow.track("tokens")
    raise environ["problem"]


def after_a_head_alone(environ: Any, start_response: Any) -> Any:
    start_response("204 No Content", [])
    doow.track("tokens")
    raise environ["problem"]


def after_a_write(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])(b"some ")
    doow.track("tokens")
    raise environ["problem"]


def in_the_first_step(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    yield from raising(environ["problem"])


def in_a_later_step(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    yield b"some "
    doow.track("tokens")
    raise environ["problem"]


def in_iter(environ: Any, start_response: Any) -> Any:
    class Body:
        def __iter__(self) -> Any:
            doow.track("tokens")
            raise environ["problem"]

    start_response("200 OK", [TEXT])
    return Body()


def in_close(environ: Any, start_response: Any) -> Any:
    class Body(Closing):
        def close(self) -> None:
            doow.track("tokens")
            raise environ["problem"]

    start_response("200 OK", [TEXT])
    return Body(b"text")


def raising(problem: BaseException) -> Iterator[bytes]:
    raise problem
    yield b""


PLACES = [
    before_its_head,
    after_its_head,
    after_a_head_alone,
    after_a_write,
    in_the_first_step,
    in_a_later_step,
    in_iter,
    in_close,
]


@pytest.mark.parametrize("kind", [Trouble, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("app", PLACES)
def test_an_exception_is_the_very_same_once_all_is_delivered(
    app: Any, kind: type[BaseException], trace: Trace
) -> None:
    """Whatever it is and wherever it is raised, nobody sees it before Doow has the events."""
    problem = kind("no such customer")
    with pytest.raises(kind) as raised:
        Server(DoowMiddleware(app), trace).get(problem=problem)
    assert raised.value is problem
    assert problem.__context__ is None
    assert accepted(trace.ingest) == ["tokens"]
    if app is not in_close:
        assert ("raised", kind, 1) in trace.calls


@pytest.mark.parametrize("app", PLACES)
def test_the_bytes_before_an_exception_are_those_of_the_bare_application(
    app: Any, trace: Trace
) -> None:
    """What the client has got when the application breaks off does not depend on us."""
    sent = []
    for each, surroundings in ((DoowMiddleware(app), nullcontext()), (app, unmetered())):
        other = Trace(trace.ingest)
        with surroundings, pytest.raises(Trouble):
            Server(each, other).get(problem=Trouble())
        sent.append([call[:2] for call in other.calls])
    assert sent[0] == sent[1]


def test_an_exception_of_write_passes_through(trace: Trace) -> None:
    """The server's own, as of a client that has gone, reaches the application and then the server.

    The application may go on, and what it then records arrives as well.
    """
    gone = BrokenPipeError()
    seen: list[BaseException] = []

    def write(chunk: bytes) -> None:
        raise gone

    def app(environ: Any, start_response: Any) -> Any:
        try:
            start_response("200 OK", [("Content-Length", "4")])(b"text")
        except OSError as problem:
            seen.append(problem)
            doow.track("cleaned up")
            raise
        return []

    with pytest.raises(BrokenPipeError) as raised:
        call(DoowMiddleware(app), lambda *_: write)
    assert raised.value is gone
    assert seen == [gone]
    assert accepted(trace.ingest) == ["cleaned up"]


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
def test_an_exception_of_start_response_passes_through(status: str, trace: Trace) -> None:
    """As of a server that refuses a header."""
    refused = ValueError("header")

    def start_response(*_: Any) -> Any:
        raise refused

    def app(environ: Any, start_response: Any) -> Any:
        doow.track("tokens")
        start_response(status, [TEXT])
        return []

    with pytest.raises(ValueError, match="header") as raised:
        call(DoowMiddleware(app), start_response)
    assert raised.value is refused
    assert accepted(trace.ingest) == ["tokens"]


def test_the_application_s_exception_comes_before_the_server_s(trace: Trace) -> None:
    """If the server refuses a head that was kept, the application's own error is raised."""
    problem = Trouble()

    def start_response(*_: Any) -> Any:
        raise ValueError("header")

    with pytest.raises(Trouble) as raised:
        call(DoowMiddleware(after_a_head_alone), start_response, problem=problem)
    assert raised.value is problem


@pytest.mark.parametrize("kind", ["body", "file"])
def test_a_body_is_closed_if_the_server_refuses_its_head(kind: str, trace: Trace) -> None:
    """The server has no body yet, so nobody else can close it."""
    body = Closing(b"text", records="closed")
    file = FileWrapper(io.BytesIO(b"text"))

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return body if kind == "body" else file

    def start_response(*_: Any) -> Any:
        raise ValueError("header")

    with pytest.raises(ValueError, match="header"):
        call(DoowMiddleware(app), start_response, method="HEAD")
    if kind == "body":
        assert body.closed == 1
        assert accepted(trace.ingest) == ["tokens", "closed"]
    else:
        assert file.filelike.closed
        assert accepted(trace.ingest) == ["tokens"]


def test_what_close_records_after_an_exception_arrives(trace: Trace) -> None:
    """As what a framework tears down, after a stream that broke off."""
    body = Closing(records="closed")

    def app(environ: Any, start_response: Any) -> Any:
        class Body:
            close = body.close

            def __iter__(self) -> Any:
                return in_a_later_step(environ, start_response)

        return Body()

    with pytest.raises(Trouble):
        Server(DoowMiddleware(app), trace).get(problem=Trouble())
    assert body.closed == 1
    assert trace.calls[-1] == ("over", None, 2)
    assert accepted(trace.ingest) == ["tokens", "closed"]


# ── on_exception="discard" ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("app", PLACES[:-1])
def test_discard_forgets_what_a_failed_request_recorded(app: Any, trace: Trace) -> None:
    """Wherever it failed; the next request counts as ever."""
    served = DoowMiddleware(app, on_exception="discard")
    with pytest.raises(Trouble):
        Server(served).get(problem=Trouble())
    Server(DoowMiddleware(complete, on_exception="discard")).get()
    assert accepted(trace.ingest) == ["complete"]


def complete(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Length", "4")])
    doow.track("complete")
    yield b"text"


def test_discard_counts_what_is_complete(trace: Trace) -> None:
    """The events of a complete response have been delivered, whatever ``close()`` raises."""

    class Body(Closing):
        def close(self) -> None:
            raise Trouble

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("complete")
        return Body(b"text")

    with pytest.raises(Trouble):
        Server(DoowMiddleware(app, on_exception="discard"), trace).get()
    assert trace.calls[-2:] == [("end", None, 1), ("over", None, 1)]


def test_discard_forgets_a_response_whose_close_fails_half_way(trace: Trace) -> None:
    """It was never complete, and ended with an exception."""

    class Body(Closing):
        def close(self) -> None:
            raise Trouble

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return Body(b"some ", b"text")

    with pytest.raises(Trouble):
        Server(DoowMiddleware(app, on_exception="discard")).get(chunks=1)
    assert trace.ingest.posts() == []


def test_discard_forgets_a_sized_body_that_fails(trace: Trace) -> None:
    """A length says nothing of how the chunks come about."""

    class Body:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[bytes]:
            yield b"some "
            raise Trouble

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return Body()

    with pytest.raises(Trouble):
        Server(DoowMiddleware(app, on_exception="discard"), trace).get()
    assert trace.ingest.posts() == []


@pytest.mark.parametrize(("status", "expected"), [("404 Not Found", ["tokens"]), ("500 Oh", [])])
def test_discard_waits_for_close_where_a_response_says_it_failed(
    status: str, expected: list[str], trace: Trace
) -> None:
    """Its exception may be yet to come; a client's error is no failure."""

    class Body(Closing):
        def close(self) -> None:
            raise Trouble

    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, [TEXT])
        doow.track("tokens")
        return Body(b"text")

    with pytest.raises(Trouble):
        Server(DoowMiddleware(app, on_exception="discard"), trace).get()
    assert trace.calls[-2:] == [("end", None, len(expected)), ("over", None, len(expected))]
    assert accepted(trace.ingest) == expected


def test_discard_counts_what_a_client_did_not_wait_for(trace: Trace) -> None:
    """A response that is closed half-way, in order, has not failed."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return Closing(b"some ", b"text")

    Server(DoowMiddleware(app, on_exception="discard")).get(chunks=1)
    assert accepted(trace.ingest) == ["tokens"]


@pytest.mark.parametrize("kind", [list, iter])
def test_discard_counts_a_response_that_says_it_failed(kind: Any, trace: Trace) -> None:
    """A response is no exception, whatever its status."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("503 Busy", [TEXT])
        doow.track("tokens")
        return kind([b"busy"])

    Server(DoowMiddleware(app, on_exception="discard")).get()
    assert accepted(trace.ingest) == ["tokens"]

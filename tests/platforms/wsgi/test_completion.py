"""The WSGI middleware, call by call: what completes a response waits, and nothing else does."""

from __future__ import annotations

import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware
from tests.metering import Trace
from tests.platforms.wsgi.apps import Server, call
from tests.platforms.wsgi.shapes import TEXT, Closing, Stepping, of_no_length

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless.local import Ingest


# ── order ──────────────────────────────────────────────────────────────────────────────────────


def reaching_its_length(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT, ("Content-Length", "4")])
    doow.track("tokens")

    def chunks() -> Iterator[bytes]:
        yield b"ab"
        yield b""
        yield b"cd"
        yield b""
        doow.track("late")

    return chunks()


def exceeding_its_length(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("content-LENGTH", " 3 ")])
    doow.track("tokens")
    return Stepping(b"ab", b"cd")


def falling_short(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [("Content-Length", "5")])
    doow.track("tokens")
    return iter([b"ab", b"cd"])


def without_length(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    doow.track("tokens")
    return iter([b"ab", b"cd"])


def of_odd_length(environ: Any, start_response: Any) -> Any:
    """A length that is no number is not one."""
    start_response("200 OK", [("Content-Length", "-2")])
    doow.track("tokens")
    return iter([b"ab", b"cd"])


def starting_late(environ: Any, start_response: Any) -> Any:
    doow.track("tokens")
    start_response("200 OK", [("Content-Length", "2")])
    yield b"ab"


def writing_its_length(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [("Content-Length", "4")])
    doow.track("tokens")
    write(b"ab")
    write(b"cd")
    doow.track("late")
    return []


def writing_then_returning(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [("Content-Length", "4")])
    doow.track("tokens")
    write(b"ab")
    return iter([b"cd"])


def writing_without_length(environ: Any, start_response: Any) -> Any:
    write = start_response("200 OK", [TEXT])
    doow.track("tokens")
    write(b"ab")
    return []


def as_list(environ: Any, start_response: Any) -> Any:
    start_response("200 OK", [TEXT])
    doow.track("tokens")
    return [b"ab", b"cd"]


def replaced(environ: Any, start_response: Any) -> Any:
    """The length that counts is that of the last head."""
    start_response("200 OK", [("Content-Length", "2")])
    try:
        raise LookupError
    except LookupError:
        start_response("404 Not Found", [("Content-Length", "4")], sys.exc_info())
    doow.track("tokens")
    return iter([b"ab", b"cd"])


ORDERS: dict[Any, list[tuple[str, Any, int]]] = {
    reaching_its_length: [("chunk", b"ab", 0), ("chunk", b"cd", 1), ("end", None, 2)],
    exceeding_its_length: [("chunk", b"ab", 0), ("chunk", b"cd", 1), ("end", None, 2)],
    falling_short: [("chunk", b"ab", 0), ("chunk", b"cd", 0), ("end", None, 1)],
    without_length: [("chunk", b"ab", 0), ("chunk", b"cd", 0), ("end", None, 1)],
    of_odd_length: [("chunk", b"ab", 0), ("chunk", b"cd", 0), ("end", None, 1)],
    starting_late: [("chunk", b"ab", 1), ("end", None, 1)],
    writing_its_length: [("chunk", b"ab", 0), ("chunk", b"cd", 1), ("end", None, 2)],
    writing_then_returning: [("chunk", b"ab", 0), ("chunk", b"cd", 1), ("end", None, 1)],
    writing_without_length: [("chunk", b"ab", 0), ("end", None, 1)],
    as_list: [("chunk", b"ab", 1), ("chunk", b"cd", 1), ("end", None, 1)],
}


@pytest.mark.parametrize("app", ORDERS)
def test_what_completes_a_response_waits(app: Any, trace: Trace) -> None:
    """Doow has accepted the events when the last bytes go out, and only those are held back."""
    Server(DoowMiddleware(app), trace).get()
    assert [call for call in trace.calls if call[0] in ("chunk", "end")] == ORDERS[app]


def test_the_length_of_the_last_head_counts(trace: Trace) -> None:
    """Where an application replaces its head before it was sent."""
    Server(DoowMiddleware(replaced), trace).get()
    assert trace.calls == [
        ("head", "404 Not Found", 0),
        ("chunk", b"ab", 0),
        ("chunk", b"cd", 1),
        ("end", None, 1),
        ("over", None, 1),
    ]


HEADS = {
    "HEAD": ("HEAD", "200 OK", [TEXT, ("Content-Length", "4")]),
    "HEAD without length": ("HEAD", "200 OK", [TEXT]),
    "204": ("GET", "204 No Content", []),
    "304": ("GET", "304 Not Modified", [("Content-Length", "4")]),
    "Content-Length 0": ("POST", "200 OK", [TEXT, ("Content-Length", "0")]),
    "redirect": ("POST", "303 See Other", [("Location", "/"), ("Content-Length", "0")]),
}

BODIES: dict[str, Callable[[], Any]] = {
    "list": list,
    "tuple": lambda: (b"",),
    "exhausted": lambda: iter(()),
    "empty chunk": lambda: iter([b""]),
    "closing": Closing,
}


@pytest.mark.parametrize("is_eager", [True, False], ids=["eager", "lazy"])
@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("head", HEADS)
def test_a_head_that_completes_the_response_waits(
    head: str, body: str, is_eager: bool, doow_ingest: Ingest
) -> None:
    """Also on a server that sends it at start_response, before the application has recorded."""
    trace = Trace(doow_ingest)
    method, status, headers = HEADS[head]

    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, headers)
        doow.track("tokens")
        return BODIES[body]()

    Server(DoowMiddleware(app), trace, is_eager=is_eager).get(method)
    assert trace.calls == [("head", status, 1), ("end", None, 1), ("over", None, 1)]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("head", HEADS)
def test_a_complete_response_is_known_when_the_call_returns(
    head: str, body: str, trace: Trace
) -> None:
    """Granian and awsgi read status and headers then, and look no more."""
    method, status, headers = HEADS[head]

    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, headers)
        doow.track("tokens")
        return BODIES[body]()

    result = call(DoowMiddleware(app), lambda *head: trace.note("head", head), method=method)
    trace.note("returned")
    assert trace.calls == [("head", (status, headers), 1), ("returned", None, 1)]
    assert b"".join(result) == b""


class Chunks(list[bytes]):
    """A list with a ``close()``."""

    def close(self) -> None:
        pass


@pytest.mark.parametrize("kind", [list, tuple, deque, Chunks])
def test_a_sized_body_is_complete_when_the_call_returns(kind: Any, trace: Trace) -> None:
    """All of it is there, so its events are delivered, in one POST."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return kind([b"ab", b"cd"])

    result = call(DoowMiddleware(app), lambda *head: trace.note("head"))
    trace.note("returned")
    assert trace.calls == [("head", None, 0), ("returned", None, 1)]
    assert b"".join(result) == b"abcd"
    assert len(trace.ingest.posts()) == 1


def test_the_last_chunk_of_a_sized_body_waits(trace: Trace) -> None:
    """It may record as it is iterated over, and servers know its last chunk."""

    class Body:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[bytes]:
            yield b"ab"
            doow.track("tokens")
            yield b"cd"

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        return Body()

    Server(DoowMiddleware(app), trace).get()
    assert trace.calls[1:3] == [("chunk", b"ab", 0), ("chunk", b"cd", 1)]


def test_a_head_waits_that_a_write_sends(trace: Trace) -> None:
    """The empty write of an application that has nothing else to send is what completes it."""

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("204 No Content", [])
        doow.track("tokens")
        write(b"")
        return []

    Server(DoowMiddleware(app), trace, is_eager=True).get()
    assert trace.calls[0] == ("head", "204 No Content", 1)


def test_a_generator_sends_its_head_when_it_has_run(trace: Trace) -> None:
    """What runs only when it is iterated over is held in the same way."""
    Server(DoowMiddleware(of_no_length), trace, is_eager=True).get()
    assert trace.calls == [("head", "200 OK", 1), ("end", None, 1), ("over", None, 1)]


def test_a_head_that_is_replaced_does_not_overtake_the_events(trace: Trace) -> None:
    """On an eager server the first head completes the response: by then the events are there."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("204 No Content", [])
        doow.track("tokens")
        try:
            raise LookupError
        except LookupError:
            start_response("500 Oh", [("Content-Length", "2")], sys.exc_info())
        return [b"oh"]

    server = Server(DoowMiddleware(app), trace, is_eager=True)
    with suppress(LookupError):  # The server's, once its head has gone out.
        server.get()
    assert trace.calls == [] or trace.calls[0][2] == 1


def test_a_body_of_one_chunk_is_complete_with_it(trace: Trace) -> None:
    """Servers make a Content-Length of a length of one, as of a list (wsgiref does)."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return deque([b"text"])

    Server(DoowMiddleware(app), trace).get()
    assert trace.calls[:2] == [("head", "200 OK", 1), ("chunk", b"text", 1)]


# ── streams ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("headers", [[TEXT], [("Content-Length", "3")]], ids=["open", "length"])
def test_a_stream_is_neither_delayed_nor_read_ahead(headers: Any, trace: Trace) -> None:
    """The application goes on only when the server asks for more, and has its chunks at once."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", headers)
        for number in range(3):
            doow.track("tokens")
            trace.note("app", number)
            yield b"%d" % number

    Server(DoowMiddleware(app), trace).get()
    last = 3 if headers != [TEXT] else 0
    assert trace.calls == [
        ("app", 0, 0),
        ("head", "200 OK", 0),
        ("chunk", b"0", 0),
        ("app", 1, 0),
        ("chunk", b"1", 0),
        ("app", 2, 0),
        ("chunk", b"2", last),
        ("end", None, 3),
        ("over", None, 3),
    ]
    assert len(trace.ingest.posts()) == 1


def test_nothing_runs_before_the_server_iterates(trace: Trace) -> None:
    """Neither the iterator is made, nor is its first step taken, in the call."""

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            trace.note("iter")
            return iter([b"text"])

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        return Body()

    result = call(DoowMiddleware(app))
    trace.note("returned")
    assert list(result) == [b"text"]
    assert [what for what, _, _ in trace.calls] == ["returned", "iter"]

"""The WSGI middleware leaves requests and responses of every shape as they are."""

from __future__ import annotations

import gc
import io
import sys
from collections import deque
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware
from tests.metering import accepted, configure, unmetered
from tests.platforms.wsgi.apps import Server, bare, call
from tests.platforms.wsgi.shapes import APPS, TEXT, Closing

if TYPE_CHECKING:
    from doow_serverless.local import Ingest


@pytest.fixture(autouse=True)
def _configured(doow_ingest: Ingest) -> None:
    configure(doow_ingest)


# ── what passes untouched ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_arguments_of_start_response_are_the_very_same(
    method: str, doow_ingest: Ingest
) -> None:
    """Number and identity: two, three with None, and an exc_info whose traceback is its own."""
    calls: list[tuple[Any, ...]] = []
    given: list[tuple[Any, ...]] = [
        ("200 OK", [TEXT]),
        ("201 Created", [TEXT], None),
        ("500 Oh", [TEXT]),
    ]

    def app(environ: Any, start_response: Any) -> Any:
        start_response(*given[0])
        start_response(*given[1])
        try:
            raise LookupError
        except LookupError:
            given[2] += (sys.exc_info(),)
            start_response(*given[2])
        return [b"text"]

    call(DoowMiddleware(app), lambda *args: calls.append(args), method=method)
    assert [[id(argument) for argument in call] for call in calls] == [
        [id(argument) for argument in call] for call in given
    ]
    given.clear()  # A traceback holds its frames.


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
def test_a_named_exc_info_is_passed_on(status: str, doow_ingest: Ingest) -> None:
    """Servers take it, and applications give it, although the PEP wants it by position."""
    calls: list[dict[str, Any]] = []
    exc_info = (LookupError, LookupError(), None)

    def app(environ: Any, start_response: Any) -> Any:
        start_response(status, [], exc_info=exc_info)
        return []

    call(DoowMiddleware(app), lambda *_, **named: calls.append(named))
    assert calls == [{"exc_info": exc_info}]


def test_headers_are_not_used_up(doow_ingest: Ingest) -> None:
    """Servers take any iterable, although the PEP wants a list."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", iter([TEXT, ("Content-Length", "4")]))
        doow.track("tokens")
        return [b"text"]

    assert Server(DoowMiddleware(app)).get() == bare(app)


def test_what_write_returns_is_passed_on(doow_ingest: Ingest) -> None:
    """It is the server's, and the chunk is the application's own object."""
    chunks: list[bytes] = []
    answer = object()
    chunk = b"te" + b"xt"

    def write(chunk: bytes) -> object:
        chunks.append(chunk)
        return answer

    def app(environ: Any, start_response: Any) -> Any:
        assert start_response("200 OK", [TEXT])(chunk) is answer
        return []

    call(DoowMiddleware(app), lambda *_: write)
    assert chunks[0] is chunk


def test_a_server_without_write_is_not_given_one(doow_ingest: Ingest) -> None:
    """Granian and Hypercorn have none: the application fails at its first chunk, as without us."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])(b"text")
        return []

    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        call(DoowMiddleware(app))


@pytest.mark.parametrize("make", [list, tuple, lambda chunks: FileWrapper(io.BytesIO(*chunks))])
def test_lists_tuples_and_files_are_returned_as_they_are(make: Any, doow_ingest: Ingest) -> None:
    """Servers treat them better; all is delivered when they are returned."""
    result = make([b"text"])

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return result

    assert call(DoowMiddleware(app)) is result
    assert accepted(doow_ingest) == ["tokens"]


def test_a_file_wrapper_may_be_a_function(doow_ingest: Ingest) -> None:
    """The PEP asks for a callable, of which nothing tells what it has made."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return environ["wsgi.file_wrapper"](io.BytesIO(b"text"))

    wrapper: dict[str, Any] = {"wsgi.file_wrapper": lambda file: FileWrapper(file)}
    sent = Server(DoowMiddleware(app)).get(**wrapper)
    assert sent.endswith(b"\r\n\r\ntext")
    assert accepted(doow_ingest) == ["tokens"]


def test_uwsgi_gets_the_file_itself(doow_ingest: Ingest) -> None:
    """Its file wrapper is a function that returns the file, for which the server then looks."""
    file = io.BytesIO(b"text")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return environ["wsgi.file_wrapper"](file)

    wrapper: dict[str, Any] = {"wsgi.file_wrapper": lambda file: file}
    assert call(DoowMiddleware(app), **wrapper) is file
    assert accepted(doow_ingest) == ["tokens"]


def test_a_list_that_closes_is_closed(doow_ingest: Ingest) -> None:
    """A list of one's own may have a ``close()``, and that may record."""

    class Chunks(list[bytes]):
        def close(self) -> None:
            doow.track("closed")

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        return Chunks([b"text"])

    assert isinstance(call(DoowMiddleware(app)), list)  # Granian looks.
    Server(DoowMiddleware(app)).get()
    assert accepted(doow_ingest) == ["closed"]


def test_chunks_pass_whatever_they_are(doow_ingest: Ingest) -> None:
    """Some servers skip a None (apig-wsgi does), others refuse it: that is theirs to decide."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "4")])
        doow.track("tokens")
        return iter([b"te", None, b"xt"])

    result = call(DoowMiddleware(app))
    assert list(result) == [b"te", None, b"xt"]


def test_the_length_of_a_body_is_told(doow_ingest: Ingest) -> None:
    """Only of one that has a length."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        return environ["body"]

    lengths = [
        len(result) if hasattr(result, "__len__") else None
        for body in (deque([b"a"]), deque([b"a", b"b"]), iter([b"a"]), Closing(b"a"))
        for result in [call(DoowMiddleware(app), body=body)]
    ]
    assert lengths == [1, 2, None, None]


def test_a_sized_body_can_be_asked_twice(doow_ingest: Ingest) -> None:
    """Gevent adds up the lengths of its chunks first."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [TEXT])
        doow.track("tokens")
        return deque([b"a", b"b"])

    result = call(DoowMiddleware(app))
    assert [list(result), list(result)] == [[b"a", b"b"]] * 2
    assert accepted(doow_ingest) == ["tokens"]


# ── every shape of application ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("is_eager", [True, False], ids=["eager", "lazy"])
@pytest.mark.parametrize("name", APPS)
def test_the_bytes_are_those_of_the_bare_application(
    name: str, is_eager: bool, doow_ingest: Ingest
) -> None:
    """The response does not tell whether the application is metered, and no event is missing."""
    app, method, _ = APPS[name]
    responses: list[bytes] = []
    for each, surroundings in ((DoowMiddleware(app), nullcontext()), (app, unmetered())):
        with surroundings:
            try:
                responses.append(Server(each, is_eager=is_eager).get(method))
            except LookupError as problem:  # An eager server refuses a second head.
                responses.append(repr(problem).encode())
    assert responses[0] == responses[1]


@pytest.mark.parametrize("name", APPS)
def test_all_that_an_application_records_arrives(name: str, doow_ingest: Ingest) -> None:
    """When its server is done with a response, whatever its shape."""
    app, method, events = APPS[name]
    Server(DoowMiddleware(app)).get(method)
    assert len(accepted(doow_ingest)) == events


@pytest.mark.parametrize("sides", ["above", "below", "both"])
@pytest.mark.parametrize("name", APPS)
def test_the_validator_has_nothing_to_say(
    name: str, sides: str, doow_ingest: Ingest, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither of what the server sees, nor of what the application does, to the last close()."""
    app, method, events = APPS[name]
    metered = DoowMiddleware(app if sides == "above" else validator(app))
    served = metered if sides == "below" else validator(metered)
    assert Server(served).get(method) == bare(app, method)
    gc.collect()
    assert capfd.readouterr() == ("", "")
    assert len(accepted(doow_ingest)) == events

"""Tracked handler classes as users write them: inherited, with options, failing, many at once."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.errors import ConfigurationError
from tests.metering import Trace, accepted, owners
from tests.platforms.vercel.handler_classes import Base, exchange, handler_class, request, serving

if TYPE_CHECKING:
    from pathlib import Path


def text(self: Any, text: bytes = b"text") -> None:
    doow.track("tokens")
    self.head(200, Content_Length=str(len(text)))
    self.wfile.write(text)


# ── the class ──────────────────────────────────────────────────────────────────────────────────


def test_the_class_is_the_very_same() -> None:
    """With and without options: a build finds it by name, and a runtime derives from it."""
    first, second = handler_class(text), handler_class(text)
    assert doow.tracked(first) is first
    assert doow.tracked(metric="api_calls")(second) is second
    assert issubclass(first, BaseHTTPRequestHandler)


def test_methods_keep_what_they_are_called() -> None:
    """Their names and docstrings, for tracebacks and tools."""

    class Handler(Base):
        def do_GET(self) -> None:  # noqa: N802  # its name is the contract
            """Gets."""

        def do_not_touch(self) -> str:
            return "untouched"

        do_it = "no method"

    tracked = doow.tracked(Handler)
    assert (tracked.do_GET.__name__, tracked.do_GET.__doc__) == ("do_GET", "Gets.")
    assert tracked.do_it == "no method"


def test_inherited_methods_are_tracked_and_their_base_is_not(trace: Trace) -> None:
    """What the base serves elsewhere is not metered."""
    base = handler_class(text)
    untouched = dict(vars(base))

    @doow.tracked
    class Handler(base):  # type: ignore[valid-type,misc]  # made at run time
        pass

    assert dict(vars(base)) == untouched
    with serving(Handler) as server:
        assert exchange(server, request(Connection="close")).endswith(b"\r\n\r\ntext")
    assert accepted(trace.ingest) == ["tokens"]
    with serving(base) as server:
        exchange(server, request(Connection="close"))
    assert accepted(trace.ingest) == ["tokens"]
    assert doow.flush().accepted == 1


@pytest.mark.parametrize("overrides", [True, False])
def test_a_tracked_class_of_a_tracked_class_makes_one_post(overrides: bool, trace: Trace) -> None:
    """The outermost delivers, before the write that completes the response."""
    base = doow.tracked(handler_class(text, trace=trace))

    def do_GET(self: Any) -> None:  # noqa: N802  # its name is the contract
        doow.track("more")
        base.do_GET(self)  # type: ignore[attr-defined]

    methods = {"do_GET": do_GET} if overrides else {}
    handler = doow.tracked(type("Handler", (base,), methods))
    with serving(handler) as server:
        assert exchange(server, request(Connection="close")).endswith(b"\r\n\r\ntext")
    recorded = [*(["more"] if overrides else []), "tokens"]
    assert accepted(trace.ingest) == recorded
    assert trace.calls[-1] == ("write", b"text", len(recorded))
    assert len(trace.ingest.posts()) == 1


@pytest.mark.parametrize("method", ["DELETE", "get"])
def test_a_missing_method_is_answered_with_501(method: str, trace: Trace) -> None:
    """As without us, byte for byte."""
    answers = []
    for track in (doow.tracked, _as_it_is):
        with serving(track(handler_class(text))) as server:
            answers.append(exchange(server, request(method, Connection="close")))
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 501 ")
    assert trace.ingest.posts() == []


def test_an_instance_is_refused(trace: Trace) -> None:
    """The error says what to decorate instead."""

    class MyHandler(Base):
        def __init__(self) -> None:
            pass

    with pytest.raises(ConfigurationError, match="the class MyHandler"):
        doow.tracked(MyHandler())


@pytest.mark.parametrize("cls", [object, dict, threading.Thread])
def test_other_classes_are_refused(cls: type, trace: Trace) -> None:
    """Nothing would be tracked, silently."""
    with pytest.raises(ConfigurationError, match="BaseHTTPRequestHandler"):
        doow.tracked(cls)


def test_the_handler_of_the_standard_library(trace: Trace, tmp_path: Path) -> None:
    """A class of which all is inherited serves files as ever."""
    (tmp_path / "file.txt").write_bytes(b"text" * 50_000)

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *_: Any) -> None:
            pass

    with serving(doow.tracked(metric="downloads")(Handler)) as server:
        assert exchange(server, request(path="/file.txt")).endswith(b"\r\n\r\n" + b"text" * 50_000)
        assert exchange(server, request("HEAD", "/file.txt")).endswith(b"\r\n\r\n")
    assert accepted(trace.ingest) == ["downloads"] * 2


def _as_it_is(cls: Any) -> Any:
    return cls


# ── options ────────────────────────────────────────────────────────────────────────────────────


# ── what goes wrong ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [404, 500, 204])
def test_send_error_waits_as_any_response(status: int, trace: Trace) -> None:
    """Its last write: that of the page, or that of the head where there is none."""

    def do(self: Any) -> None:
        doow.track("tokens")
        self.send_error(status)

    with serving(doow.tracked(handler_class(do, trace=trace))) as server:
        exchange(server, request())
    expected = [1] if status == 204 else [0, 1]
    assert [accepted for _, _, accepted in trace.calls] == expected


@pytest.mark.parametrize("sends", [True, False])
def test_discard_forgets_what_a_failed_request_recorded(sends: bool, trace: Trace) -> None:
    """Also where it had said that it failed; a complete success counts."""

    def do_GET(self: Any) -> None:  # noqa: N802  # its name is the contract
        doow.track("failed")
        if sends:
            self.send_error(500)
        raise LookupError

    def do_POST(self: Any) -> None:  # noqa: N802  # its name is the contract
        text(self)
        raise LookupError

    cls = doow.tracked(on_exception="discard")(handler_class(do_GET, do_POST=do_POST))
    with serving(cls) as server:
        exchange(server, request(Connection="close"))
        exchange(server, request("POST", Connection="close"))
    assert [type(each) for each in server.errors] == [LookupError] * 2
    assert accepted(trace.ingest) == ["tokens"]


def test_a_client_that_has_gone_costs_no_event(trace: Trace) -> None:
    """The exception of its broken connection is the handler's own."""
    gone = BrokenPipeError()
    seen: list[BaseException] = []

    class Broken:
        closed = False

        def write(self, data: bytes) -> None:
            raise gone

        def flush(self) -> None:
            pass

        def close(self) -> None:
            pass

    def do(self: Any) -> None:
        try:
            text(self)
        except OSError as problem:
            seen.append(problem)
            raise

    def setup(self: Any) -> None:
        super(type(self), self).setup()
        self.wfile = Broken()

    with serving(doow.tracked(handler_class(do, setup=setup))) as server:
        exchange(server, request())
    assert seen == [gone] == server.errors
    assert accepted(trace.ingest) == ["tokens"]


# ── several at once ────────────────────────────────────────────────────────────────────────────


def by_path(self: Any) -> None:
    for _ in range(2):
        doow.track("tokens", attribution={"path": self.path})
    text = self.path.encode()
    self.head(200, Content_Length=str(len(text)))
    self.wfile.write(text)


def test_requests_on_one_connection_do_not_mix(trace: Trace) -> None:
    """One POST for each, before its response is complete."""
    cls = doow.tracked(handler_class(by_path, trace=trace))
    with serving(cls) as server:
        answer = exchange(server, request(path="/a"), request(path="/b"), request(path="/c"))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 3
    assert [call[1:] for call in trace.calls if not call[1].startswith(b"HTTP")] == [
        (b"/a", 2),
        (b"/b", 4),
        (b"/c", 6),
    ]
    assert owners(trace.ingest, "path") == [{"/a"}, {"/b"}, {"/c"}]

"""The answer of a Vercel function arrives as it was sent, in both modes and from every shape."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.vercel.runtime import Response, VercelRuntime
from tests.runtimes.vercel.sample_functions import MODES, SHAPES
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_answers_in_both_modes(
    start: Callable[..., VercelRuntime], shape: str, mode: str
) -> None:
    """Status, repeated headers and body arrive, with and without a request body."""
    with start(shape, mode) as runtime:
        got = runtime.request("GET", "/path")
        posted = runtime.request("POST", "/path", body=b"gr\xc3\xb6\xc3\x9fe \xff")
        assert (got.status, got.body) == (200, b"path /path")
        assert [value for name, value in got.headers if name.lower() == "x-twice"] == ["1", "2"]
        assert (posted.status, posted.body) == (201, b"gr\xc3\xb6\xc3\x9fe \xff")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", SHAPES)
def test_answers_without_a_body(start: Callable[..., VercelRuntime], shape: str, mode: str) -> None:
    """HEAD announces a length and sends nothing, 204 does neither."""
    with start(shape, mode) as runtime:
        head = runtime.request("HEAD", "/path")
        none = runtime.request("GET", "/none")
    assert (head.status, head.body, head.first_byte_s) == (200, b"", None)
    assert head.header("content-length") == "10"
    assert (none.status, none.body, none.first_byte_s) == (204, b"", None)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_stream_arrives_as_it_is_sent(start: Callable[..., VercelRuntime], shape: str) -> None:
    """The first byte comes long before the last, and the end follows the last."""
    with start(shape) as runtime:
        runtime.request("GET", "/path")
        response = runtime.request("GET", "/stream")
    assert (response.status, response.body) == (200, b"one,two")
    assert response.first_byte_s is not None
    within(response.first_byte_s, response.duration_s - 0.25)
    assert response.duration_s >= 0.3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", ["handler", "asgi"])
def test_a_large_body_arrives_whole(
    start: Callable[..., VercelRuntime], shape: str, mode: str
) -> None:
    """Even if its end is still in a buffer of the process when the invocation is over."""
    with start(shape, mode) as runtime:
        body = os.urandom(4_000_000)
        response = runtime.request("POST", "/path", body=body)
        assert response.body == body
        assert runtime.stopped


def test_the_very_bytes_are_seen(start: Callable[..., VercelRuntime]) -> None:
    """A body where there must be none is in the raw bytes, and only there."""
    function = """
from http.server import BaseHTTPRequestHandler

class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_response_only(200)
        self.end_headers()
        self.wfile.write(b"too much")
"""
    with start(function) as runtime:
        runtime.request("HEAD")
        response = runtime.request("HEAD")
    assert response.raw == b"HTTP/1.0 200 OK\r\n\r\ntoo much"
    assert response.body == b""


def test_a_connection_serves_several_requests(start: Callable[..., VercelRuntime]) -> None:
    """Kept alive over the freeze, as long as the function's server keeps it."""
    with start("asgi") as runtime, runtime.connect() as connection:
        port = connection.socket.getsockname()[1]
        for path in ("/one", "/two", "/stream", "/none", "/three"):
            response = runtime.request("GET", path, on_connection=connection)
            assert response.status in (200, 204)
            assert runtime.stopped
        assert response.body == b"path /three"
        assert connection.socket.getsockname()[1] == port


@pytest.mark.parametrize(
    ("shape", "status"), [("handler", None), ("wsgi", None), ("asgi", 500), ("flask", 500)]
)
def test_an_exception_ends_the_invocation_over_http(
    start: Callable[..., VercelRuntime], shape: str, status: int | None
) -> None:
    """Who has no error page closes the connection without an answer; the process goes on."""
    with start(shape) as runtime:
        response = runtime.request("GET", "/fail")
        assert response.status == status
        assert response.raw == b"" or status is not None
        assert response.messages[-1]["type"] == "end"
        assert runtime.stopped
        assert runtime.request("GET", "/path").status == 200


@pytest.mark.parametrize(("shape", "status"), [("handler", None), ("asgi", 500)])
def test_an_exception_ends_the_invocation_of_vc_handler(
    start: Callable[..., VercelRuntime], shape: str, status: int | None
) -> None:
    """Without an answer vc_handler itself raises."""
    with start(shape, "lambda") as runtime:
        response = runtime.request("GET", "/fail")
        assert response.status == status
        assert (response.error or "").startswith("RemoteDisconnected") is (status is None)
        assert runtime.stopped
        assert runtime.request("GET", "/path").status == 200


def test_the_headers_of_a_response_are_looked_up_in_any_case() -> None:
    """And the first of several counts."""
    response = Response(200, [("X-Twice", "1"), ("x-twice", "2")], b"", b"", None, 0.0, [], [])
    assert (response.header("x-TWICE"), response.header("x-none")) == ("1", None)

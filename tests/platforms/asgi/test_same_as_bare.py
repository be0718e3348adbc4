"""ASGI: a server hears from a wrapped application what it would hear from the bare one."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless import Tracker
from doow_serverless.asgi import DoowMiddleware
from doow_serverless.testing import MemoryTransport
from tests.network import KEY
from tests.platforms.asgi.apps import LAST, START, Wire, body, http, saying, silent, start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from doow_serverless.asgi import App, Message


class Picky(Wire):
    """A server that refuses some messages, as servers do that check what they are sent."""

    async def send(self, message: Message) -> None:
        await super().send(message)
        if not isinstance(message.get("body", b""), bytes):
            raise TypeError("the body must be bytes")
        if sum(each.get("type") == "http.response.start" for each in self.sent) > 1:
            raise RuntimeError("the response has begun")


def conversation(
    make: Callable[[], Wire], app: App, method: str
) -> tuple[list[Message], list[int], str]:
    """What a server saw: the messages, which objects they were, and what came out."""
    wire = make()
    came_out = "nothing"
    try:
        wire.serve(app, http(method))
    except Exception as problem:
        came_out = repr(problem)
    return copy.deepcopy(wire.sent), [id(each) for each in wire.sent], came_out


def same_as_bare(messages: Iterable[Message], method: str, make: Callable[[], Wire] = Wire) -> None:
    tracker = Tracker(KEY, transport=MemoryTransport(), license_id="lic_1", warm_up=False)
    expected = conversation(make, silent(*messages), method)
    wrapped = DoowMiddleware(saying(*messages), tracker=tracker)
    assert expected == conversation(make, wrapped, method)


MALFORMED: dict[str, list[Message]] = {
    "length is no number": [start(200, (b"content-length", b"abc")), LAST],
    "length is negative": [start(200, (b"content-length", b"-1")), LAST],
    "length is an int": [start(200, (b"content-length", 4)), LAST],  # type: ignore[arg-type]
    "two lengths": [start(200, (b"content-length", b"4"), (b"content-length", b"9")), LAST],
    "digits of another script": [start(200, (b"content-length", "٤".encode())), LAST],
    "headers are text": [start(200, ("content-length", "4")), LAST],  # type: ignore[arg-type]
    "headers are pairs of three": [start(200, (b"a", b"b", b"c")), LAST],  # type: ignore[arg-type]
    "no headers": [{"type": "http.response.start", "status": 200}, LAST],
    "headers None": [{"type": "http.response.start", "status": 200, "headers": None}, LAST],
    "no status": [{"type": "http.response.start", "headers": []}, LAST],
    "status is text": [start("200"), LAST],  # type: ignore[arg-type]  # hypercorn takes it
    "status None": [start(None), LAST],  # type: ignore[arg-type]
    "body None": [START, body(None)],  # type: ignore[arg-type]
    "body None for HEAD or 204": [start(204), body(None)],  # type: ignore[arg-type]
    "body is text": [START, body("text")],  # type: ignore[arg-type]
    "body is a number": [START, body(5), LAST],  # type: ignore[arg-type]
    "body before the start": [LAST, START, LAST],
    "two starts": [START, start(500), LAST],
    "two starts without a body": [start(204), start(304), LAST],
    "start after the end": [START, LAST, start(204)],
    "more after the end": [START, LAST, body(b"more"), body(b"more", more_body=True)],
    "nothing": [],
    "only a start": [START],
    "only a start of 204": [start(204)],
    "no type": [{}],
    "type None": [{"type": None}],
    "unknown type": [{"type": "http.response.mystery"}, START, LAST],
    "unknown type within 204": [start(204), {"type": "http.response.mystery"}, body()],
    "trailers that never come": [start(trailers=True), LAST],
    "trailers that were not announced": [START, LAST, {"type": "http.response.trailers"}],
}


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("server", [Wire, Picky])
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_messages_are_for_the_server_to_judge(
    case: str, server: type[Wire], method: str
) -> None:
    """The same messages reach it in the same order, and the application hears its verdict."""
    same_as_bare(MALFORMED[case], method, server)


_HEADERS = st.lists(
    st.sampled_from([(b"content-length", b"0"), (b"Content-Length", b"3"), (b"x", b"y")]),
    max_size=2,
)
_MESSAGES = st.one_of(
    st.builds(
        start, st.sampled_from([200, 204, 304, 404, 500]), trailers=st.booleans()
    ).flatmap(lambda message: _HEADERS.map(lambda headers: {**message, "headers": headers})),
    st.builds(body, st.sampled_from([b"", b"ab", b"abc"]), more_body=st.booleans()),
    st.builds(
        lambda count, more: {
            "type": "http.response.zerocopysend",
            "count": count,
            "more_body": more,
        },
        st.sampled_from([None, 1, 3]),
        st.booleans(),
    ),
    st.builds(lambda: {"type": "http.response.pathsend", "path": "/"}),
    st.builds(
        lambda more: {"type": "http.response.trailers", "more_trailers": more}, st.booleans()
    ),
    st.builds(lambda: {"type": "http.response.debug"}),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD"]),
    messages=st.lists(_MESSAGES, max_size=6),
    server=st.sampled_from([Wire, Picky]),
)
def test_any_conversation_is_that_of_the_bare_application(
    method: str, messages: list[Message], server: type[Wire]
) -> None:
    """Whatever an application says, in whatever order: the server hears the same."""
    same_as_bare(messages, method, server)

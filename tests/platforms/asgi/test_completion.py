"""ASGI, message by message: what completes a response waits for the ingest, all else passes."""

from __future__ import annotations

import asyncio
import copy
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless import Tracker
from doow_serverless._recording.scope import current
from doow_serverless.asgi import DoowMiddleware
from doow_serverless.testing import MemoryTransport
from tests.metering import per_post
from tests.network import ACCEPTED, Peer, Server
from tests.platforms.asgi.apps import (
    LAST,
    START,
    Wire,
    body,
    http,
    recording,
    saying,
    silent,
    slow_ingest,
    start,
    websocket,
)

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from doow_serverless.asgi import Message, Receive, Send
    from doow_serverless.local import Ingest

DELIVERED = ["received", "answered"]
LENGTH_0 = (b"Content-Length", b"0")
LENGTH_4 = (b"content-length", b"4")

HELD: dict[str, tuple[str, list[Message], list[str]]] = {
    "final body": ("GET", [START, LAST], ["start", *DELIVERED, "body"]),
    "final body that says so": (
        "GET", [START, body(b"x", more_body=False)], ["start", *DELIVERED, "body"],
    ),
    "final body without content": (
        "GET", [START, {"type": "http.response.body"}], ["start", *DELIVERED, "body"],
    ),
    "final body None": ("GET", [START, body(None)], ["start", *DELIVERED, "body"]),  # type: ignore[arg-type]  # uvicorn sends it where the response is chunked
    "last of a stream": (
        "GET",
        [START, body(b"a", more_body=True), body(b"b", more_body=True), body()],
        ["start", "body", "body", *DELIVERED, "body"],
    ),
    "length reached": (
        "GET",
        [start(200, LENGTH_4), body(b"ab", more_body=True), body(b"cd", more_body=True), body()],
        ["start", "body", *DELIVERED, "body", "body"],
    ),
    "length overrun": (
        "GET",
        [start(200, LENGTH_4), body(b"abcde", more_body=True), body()],
        ["start", *DELIVERED, "body", "body"],
    ),
    "length not reached": (
        "GET", [start(200, LENGTH_4), body(b"abc")], ["start", *DELIVERED, "body"],
    ),
    "HEAD": ("HEAD", [start(200, LENGTH_4), body()], [*DELIVERED, "start", "body"]),
    "HEAD of a stream": (
        "HEAD",
        [START, body(b"a", more_body=True), body()],
        [*DELIVERED, "start", "body", "body"],
    ),
    "204": ("DELETE", [start(204), body()], [*DELIVERED, "start", "body"]),
    "304": ("GET", [start(304), body()], [*DELIVERED, "start", "body"]),
    "length 0": ("POST", [start(303, LENGTH_0), body()], [*DELIVERED, "start", "body"]),
    "only a start": ("HEAD", [START], [*DELIVERED, "start"]),
    "a start before something unknown": (
        "HEAD",
        [START, {"type": "http.response.mystery"}, body()],
        [*DELIVERED, "start", "mystery", "body"],
    ),
    "pathsend": (
        "GET",
        [start(200, LENGTH_4), {"type": "http.response.pathsend", "path": "/etc/hosts"}],
        ["start", *DELIVERED, "pathsend"],
    ),
    "pathsend for HEAD": (
        "HEAD",
        [START, {"type": "http.response.pathsend", "path": "/etc/hosts"}],
        [*DELIVERED, "start", "pathsend"],
    ),
    "trailers": (
        "GET",
        [
            start(trailers=True),
            body(b"a", more_body=True),
            body(b"b"),
            {"type": "http.response.trailers", "headers": [], "more_trailers": True},
            {"type": "http.response.trailers", "headers": []},
        ],
        ["start", "body", "body", "trailers", *DELIVERED, "trailers"],
    ),
    "zerocopysend": (
        "GET",
        [START, {"type": "http.response.zerocopysend", "file": 9}],
        ["start", *DELIVERED, "zerocopysend"],
    ),
    "zerocopysend that reaches the length": (
        "GET",
        [
            start(200, LENGTH_4),
            {"type": "http.response.zerocopysend", "file": 9, "count": 3, "more_body": True},
            {"type": "http.response.zerocopysend", "file": 9, "count": 1, "more_body": True},
            body(),
        ],
        ["start", "zerocopysend", *DELIVERED, "zerocopysend", "body"],
    ),
    "zerocopysend without a count": (
        "GET",
        [START, {"type": "http.response.zerocopysend", "file": 9, "more_body": True}, body()],
        ["start", "zerocopysend", *DELIVERED, "body"],
    ),
    "500 that is returned": ("GET", [start(500), LAST], ["start", *DELIVERED, "body"]),
    "after an informational message": (
        "GET",
        [{"type": "http.response.early_hint", "links": []}, START, LAST],
        ["early_hint", "start", *DELIVERED, "body"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HELD)
def test_what_completes_a_response_waits_for_the_answer(
    new_tracker: Callable[..., Tracker], case: str
) -> None:
    """The ingest has answered before the client has everything, and not later than it must."""
    method, messages, expected = HELD[case]
    log: list[str] = []
    with slow_ingest(log) as server:
        app = DoowMiddleware(recording(*messages), tracker=new_tracker(server.url))
        wire = Wire(log=log).serve(app, http(method))
        assert expected == log
        assert len(server.requests) == 1
    assert [id(message) for message in messages] == [id(message) for message in wire.sent]


@pytest.mark.parametrize(
    "headers",
    [
        {"headers": [(b"CONTENT-length", b" 4 ")]},
        {"headers": [[b"x", b"y"], [b"content-length", b"4"]]},
        {"headers": {b"content-length": b"4"}.items()},
    ],
    ids=["any case", "lists", "a view of a dict"],
)
def test_content_length_is_found(
    new_tracker: Callable[..., Tracker], headers: dict[str, Any]
) -> None:
    """However the headers are given, of which servers only know that they can be iterated."""
    log: list[str] = []
    messages: list[Message] = [
        {"type": "http.response.start", "status": 200, **headers},
        body(b"abcd", more_body=True),
        body(),
    ]
    with slow_ingest(log) as server:
        app = DoowMiddleware(recording(*messages), tracker=new_tracker(server.url))
        Wire(log=log).serve(app)
    assert ["start", *DELIVERED, "body", "body"] == log


def test_headers_that_can_be_read_once_reach_the_server(
    new_tracker: Callable[..., Tracker],
) -> None:
    """The specification asks for an iterable: a generator is one, and must not be used up."""
    seen: list[tuple[bytes, bytes]] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.extend(message["headers"])

    headers = [(b"content-length", b"4"), (b"x-more", b"1")]
    messages: list[Message] = [
        {"type": "http.response.start", "status": 200, "headers": iter(headers)},
        LAST,
    ]
    tracker = new_tracker(transport=MemoryTransport())
    app = DoowMiddleware(recording(*messages), tracker=tracker)
    asyncio.run(app(http(), Wire().receive, send))
    assert headers == seen


@pytest.mark.parametrize("flush_at", [1, 1000])
@pytest.mark.parametrize("length", [False, True], ids=["chunked", "length"])
def test_streams_are_not_delayed(
    new_tracker: Callable[..., Tracker], flush_at: int, length: bool
) -> None:
    """Every chunk but the last has passed before the ingest says a word."""
    passed = threading.Event()
    log: list[str] = []

    def behave(peer: Peer) -> None:
        while peer.request():
            assert passed.wait(5)
            log.append("answered")
            peer.send(ACCEPTED)

    class Stream(Wire):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if len(self.sent) == 4:  # The start and three chunks.
                passed.set()

    chunks = [body(b"a", more_body=True) for _ in range(4)]
    headers = [LENGTH_4] if length else []
    messages = [start(200, *headers), *(chunks if length else [*chunks[:3], body(b"a")])]
    with Server(behave) as server:
        tracker = new_tracker(server.url, flush_at=flush_at, budget=5.0)
        Stream(log=log).serve(DoowMiddleware(saying(*messages), tracker=tracker))
    answers = len(log) - len(messages)
    assert ["start", "body", "body", "body", *["answered"] * answers, "body"] == log
    assert answers >= 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_comes_after_the_response_is_a_second_post(
    new_tracker: Callable[..., Tracker], ingest: Ingest, method: str
) -> None:
    """A background task's events are delivered when the application returns."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("before")
        await send(START)
        await send(LAST)
        assert per_post(ingest) == [["before"]]
        doow.track("after")
        doow.track("after")

    Wire().serve(DoowMiddleware(app, tracker=new_tracker(ingest.url)), http(method))
    assert per_post(ingest) == [["before"], ["after", "after"]]


def test_a_start_that_completes_the_response_does_not_wait_for_the_body(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """The body of an event stream may never come, and a client that asks with HEAD needs none."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("before")
        await send(START)
        assert wire.sent == [START]
        doow.track("between")
        await send(body(b"a", more_body=True))
        assert per_post(ingest) == [["before"], ["between"]]
        doow.track("after")
        await send(body())

    wire = Wire()
    wire.serve(DoowMiddleware(app, tracker=new_tracker(ingest.url)), http("HEAD"))
    assert per_post(ingest) == [["before"], ["between"], ["after"]]


def test_events_after_the_length_was_reached(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """What is recorded between the last byte and the message that says so is a second POST."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("before")
        await send(start(200, LENGTH_4))
        await send(body(b"abcd", more_body=True))
        doow.track("after")
        await send(body())

    Wire().serve(DoowMiddleware(app, tracker=new_tracker(ingest.url)))
    assert per_post(ingest) == [["before"], ["after"]]


def test_a_task_that_outlives_its_request(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """Its events leave with the next flush: late, but not lost."""
    tasks: list[asyncio.Task[None]] = []

    async def straggle(gate: asyncio.Event) -> None:
        await gate.wait()
        doow.track("straggler")

    async def both() -> None:
        gate = asyncio.Event()

        async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            doow.track("request")
            if not tasks:
                tasks.append(asyncio.create_task(straggle(gate)))
            await send(START)
            await send(LAST)

        wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url))
        await Wire().run(wrapped)
        gate.set()
        await tasks[0]
        await Wire().run(wrapped)

    asyncio.run(both())
    assert per_post(ingest) == [["request"], ["request", "straggler"]]


@pytest.mark.parametrize("kind", ["returns", "raises"])
def test_nothing_is_current_afterwards(new_tracker: Callable[..., Tracker], kind: str) -> None:
    """The task that served a request is as it was, whatever the application did."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        assert current.get() is not None
        await send(START)
        if kind == "raises":
            raise LookupError
        await send(LAST)

    async def serve() -> None:
        wrapped = DoowMiddleware(app, tracker=new_tracker(transport=MemoryTransport()))
        for scope in (http(), http("HEAD"), websocket()):
            with suppress(LookupError):
                await Wire().run(wrapped, scope)
            assert current.get() is None

    asyncio.run(serve())


def test_disabled_it_is_not_there(new_tracker: Callable[..., Tracker]) -> None:
    """The application has the very objects that the server gave, and its exception passes."""
    given: list[object] = []

    async def app(*args: Any) -> None:
        given.extend(args)
        raise LookupError("mine")

    wire, scope = Wire(), http()
    wrapped = DoowMiddleware(app, tracker=new_tracker(enabled=False))
    receive, send = wire.receive, wire.send
    with pytest.raises(LookupError, match="mine"):
        asyncio.run(wrapped(scope, receive, send))
    assert [id(scope), id(receive), id(send)] == [id(one) for one in given]


def test_the_scope_is_the_servers(new_tracker: Callable[..., Tracker]) -> None:
    """Nothing is put into it but, for a request, what tells whose invocation it is."""
    given: list[object] = []

    async def app(*args: Any) -> None:
        given.extend(args)

    for scope in (http(), websocket(), {"type": "lifespan", "asgi": {}}, {"type": "mystery"}):
        before, receive = copy.deepcopy(scope), Wire().receive
        wrapped = DoowMiddleware(app, tracker=new_tracker(transport=MemoryTransport()))
        asyncio.run(wrapped(scope, receive, Wire().send))
        assert {k: v for k, v in scope.items() if k != "doow_serverless.life"} == before
        assert given[-3] is scope


def test_messages_of_two_tasks_keep_their_order(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """What is sent while another message is held does not overtake it."""
    whole, end = body(b"abcd", more_body=True), body()

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("steps")
        await send(start(200, LENGTH_4))
        await asyncio.gather(send(whole), send(end))

    wire = Wire().serve(DoowMiddleware(app, tracker=new_tracker(ingest.url)))
    assert [whole, end] == wire.sent[1:]


def test_a_loop_of_another_library(new_tracker: Callable[..., Tracker]) -> None:
    """Neither asyncio nor trio: an application that records nothing is served as if bare."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    app = DoowMiddleware(silent(START, LAST), tracker=new_tracker(transport=MemoryTransport()))
    coroutine: Any = app(http(), Wire().receive, send)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert [id(START), id(LAST)] == [id(message) for message in sent]

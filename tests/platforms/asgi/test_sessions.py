"""ASGI beyond requests: websocket sessions, and the life of the application itself."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._process.clock import WATCH_S
from doow_serverless._process.timers import timers
from doow_serverless._recording.scope import current
from doow_serverless.asgi import DoowMiddleware
from doow_serverless.local import Fault
from tests.metering import per_post
from tests.network import Metronome, Server, silent
from tests.platforms.asgi.apps import Wire, body, slow_ingest, start, wait_for_post, websocket
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from doow_serverless import Tracker
    from doow_serverless.asgi import App, Message, Receive, Send
    from doow_serverless.local import Ingest

LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
CLOSE: Message = {"type": "websocket.close", "code": 1000}


def session(*messages: Message) -> App:
    """An application that says these messages, and records before each."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        for message in messages:
            doow.track("messages")
            await send(message)

    return app


SESSIONS: dict[str, tuple[list[Message], list[str]]] = {
    "closed": (
        [
            {"type": "websocket.accept"},
            {"type": "websocket.send", "text": "a"},
            {"type": "websocket.send", "bytes": b"b"},
            CLOSE,
        ],
        ["accept", "send", "send", "received", "answered", "close"],
    ),
    "refused": ([CLOSE], ["received", "answered", "close"]),
    "denied": (
        [
            {"type": "websocket.http.response.start", "status": 403, "headers": []},
            {"type": "websocket.http.response.body", "body": b"n", "more_body": True},
            {"type": "websocket.http.response.body", "body": b"o"},
        ],
        ["start", "body", "received", "answered", "body"],
    ),
    "returned from": (
        [{"type": "websocket.accept"}, {"type": "websocket.send", "text": "a"}],
        ["accept", "send", "received", "answered"],
    ),
}


@pytest.mark.parametrize("case", SESSIONS)
def test_a_session_delivers_before_its_end(new_tracker: Callable[..., Tracker], case: str) -> None:
    """What ends the session waits for the ingest; what comes before it does not."""
    messages, expected = SESSIONS[case]
    log: list[str] = []
    with slow_ingest(log) as server:
        app = DoowMiddleware(session(*messages), tracker=new_tracker(server.url))
        wire = Wire({"type": "websocket.connect"}, log=log)
        wire.serve(app, websocket())
        assert expected == log
        assert len(server.requests) == 1
    assert [id(message) for message in messages] == [id(message) for message in wire.sent]


def test_a_client_that_is_gone(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """What the application records on hearing of it is delivered too, in the same POST."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        doow.track("connected")
        assert await receive() == {"type": "websocket.disconnect", "code": 1001}
        doow.track("disconnected")

    wire = Wire({"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001})
    wire.serve(DoowMiddleware(app, tracker=new_tracker(ingest.url)), websocket())
    assert per_post(ingest) == [["connected", "disconnected"]]


@pytest.mark.parametrize("on_exception", ["flush", "discard"])
def test_a_session_that_raises(
    new_tracker: Callable[..., Tracker], ingest: Ingest, on_exception: Any
) -> None:
    """The very exception comes out, after the events were delivered or forgotten."""
    problem = LookupError("mine")

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        doow.track("accepted")
        raise problem

    wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url), on_exception=on_exception)
    with pytest.raises(LookupError) as caught:
        Wire().serve(wrapped, websocket())
    assert caught.value is problem
    assert ([["accepted"]] if on_exception == "flush" else []) == per_post(ingest)


def test_a_long_session_delivers_meanwhile(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """Every ``flush_interval`` seconds, while the session goes on; then the rest at its end."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        for number in (1, 2):
            doow.track(f"round {number}")
            await asyncio.to_thread(ingest.wait_for, number)
        doow.track("end")
        await send(CLOSE)
        assert per_post(ingest) == [["round 1"], ["round 2"], ["end"]]

    tracker = new_tracker(ingest.url, flush_interval=0.1)
    Wire().serve(DoowMiddleware(app, tracker=tracker), websocket())
    assert per_post(ingest) == [["round 1"], ["round 2"], ["end"]]


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
def test_a_session_that_is_over_is_not_watched(
    new_tracker: Callable[..., Tracker], ingest: Ingest, how: str
) -> None:
    """No timer of it is left behind, however it ended."""
    before = set(timers._calls)

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("session")
        assert len(set(timers._calls) - before) == 1
        if how == "raises":
            raise LookupError
        if how == "is cancelled":
            raise asyncio.CancelledError

    wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url))
    if how == "returns":
        Wire().serve(wrapped, websocket())
    else:
        with pytest.raises((LookupError, asyncio.CancelledError)):
            Wire().serve(wrapped, websocket())
    ends_at = time.monotonic() + WATCH_S * 4  # Its flush was watched for so long at most.
    while not set(timers._calls) <= before and time.monotonic() < ends_at:
        time.sleep(0.01)
    assert set(timers._calls) <= before
    assert per_post(ingest) == [["session"]]


def test_what_is_discarded_is_not_delivered_meanwhile(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """Under ``on_exception="discard"`` nothing of a session counts before it has succeeded."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("doomed")
        Context().run(tracker.track, "stray")  # As a thread that sees no session.
        await asyncio.to_thread(ingest.wait_for, 1)  # The periodic flush took the stray event.
        raise LookupError

    tracker = new_tracker(ingest.url, flush_interval=0.05)
    wrapped = DoowMiddleware(app, tracker=tracker, on_exception="discard")
    with pytest.raises(LookupError):
        Wire().serve(wrapped, websocket())
    assert per_post(ingest) == [["stray"]]


# ── lifespan ───────────────────────────────────────────────────────────────────────────────────


def living(tracker: Tracker, *extra: str) -> App:
    """An application with a life, that records at both ends of it and at each request."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            tracker.track("request")
            await send(start())
            await send(body())
            return
        while True:
            kind = (await receive())["type"]
            if kind in extra or not extra:
                tracker.track(kind)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    return app


@pytest.mark.parametrize("outcome", ["complete", "failed"])
def test_the_life_of_an_application(new_tracker: Callable[..., Tracker], outcome: str) -> None:
    """Its messages pass as they are; the last waits until nothing is left to deliver."""
    log: list[str] = []
    messages: list[Message] = [
        {"type": "lifespan.startup.complete"},
        {"type": f"lifespan.shutdown.{outcome}", "message": ""},
    ]

    with slow_ingest(log) as server:
        tracker = new_tracker(server.url)

        async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            assert current.get() is None
            for message in messages:
                log.append((await receive())["type"])
                tracker.track("life")
                await send(message)

        wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}, log=log)
        wire.serve(DoowMiddleware(app, tracker=tracker), LIFESPAN)
    assert log == [
        "lifespan.startup", "complete",
        "lifespan.shutdown", "received", "answered", outcome,
    ]  # fmt: skip
    assert [id(message) for message in messages] == [id(message) for message in wire.sent]


def test_events_of_the_start_leave_with_the_first_request(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """They are not lost, and cost no POST of their own."""
    tracker = new_tracker(ingest.url)
    app = DoowMiddleware(living(tracker), tracker=tracker)

    async def live() -> None:
        up, down = asyncio.Event(), asyncio.Event()

        class Life(Wire):
            async def receive(self) -> Message:
                await (down.wait() if up.is_set() else asyncio.sleep(0))
                return await super().receive()

            async def send(self, message: Message) -> None:
                await super().send(message)
                up.set()

        life = Life({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
        lifetime = asyncio.create_task(life.run(app, dict(LIFESPAN)))
        await up.wait()
        await Wire().run(app)
        await Wire().run(app)
        down.set()
        await lifetime

    asyncio.run(live())
    expected = [["request", "lifespan.startup"], ["request"], ["lifespan.shutdown"]]
    assert expected == per_post(ingest)


def test_an_application_without_a_life(new_tracker: Callable[..., Tracker]) -> None:
    """The exception by which a server sees that passes as it is."""
    problem = NotImplementedError("no lifespan here")

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        raise problem

    wrapped = DoowMiddleware(app, tracker=new_tracker(enabled=True, warm_up=False))
    with pytest.raises(NotImplementedError) as caught:
        Wire().serve(wrapped, LIFESPAN)
    assert caught.value is problem


def test_the_end_of_a_life_keeps_the_budget(new_tracker: Callable[..., Tracker]) -> None:
    """A silent ingest holds a shutdown up for no longer than that."""
    with Server(silent) as server, Metronome() as noise:
        tracker = new_tracker(server.url, budget=0.2, dead_letter="off")

        async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            tracker.track("life")
            begun = asyncio.get_running_loop().time()
            await send({"type": "lifespan.shutdown.complete"})
            took_s.append(asyncio.get_running_loop().time() - begun)

        took_s: list[float] = []
        Wire().serve(DoowMiddleware(app, tracker=tracker), LIFESPAN)
    within(took_s[0], 0.25 + noise.worst_s, at_least_s=0.15)


def test_a_life_that_a_request_brings_along(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """Up and down within a tracked handler, as adapters do it: all of it is the handler's POST."""
    tracker = new_tracker(ingest.url)
    app = DoowMiddleware(living(tracker), tracker=tracker)

    @tracker.tracked
    async def handler() -> None:
        Context().run(tracker.track, "stray")
        await Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}).run(app, LIFESPAN)
        await Wire().run(app)
        assert ingest.posts() == []

    for _ in range(2):
        asyncio.run(handler())
        expected = [["lifespan.startup", "lifespan.shutdown", "request", "stray"]]
        assert expected == per_post(ingest)
        ingest.reset()


def test_a_session_that_ends_while_it_delivers(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """What a periodic flush has under way is waited for, and does not travel again."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("before")
        await asyncio.to_thread(wait_for_post, ingest)
        doow.track("after")
        await send(CLOSE)

    ingest.fault(Fault(delay_s=0.2))
    tracker = new_tracker(ingest.url, flush_interval=0.05, warm_up="connect")
    Wire().serve(DoowMiddleware(app, tracker=tracker), websocket())
    assert per_post(ingest) == [["before"], ["after"]]

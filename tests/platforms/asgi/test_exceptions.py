"""How a request may end under ASGI: by an exception, by a cancellation, at a silent ingest."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
import trio

import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware
from tests.metering import per_post
from tests.network import Server, silent
from tests.platforms.asgi.apps import (
    LAST,
    START,
    Wire,
    body,
    http,
    recording,
    slow_ingest,
    start,
    unattended,
)

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from doow_serverless import Tracker
    from doow_serverless.asgi import App, Message, Receive, Send
    from doow_serverless.local import Ingest


def raising(problem: BaseException, *messages: Message) -> App:
    """An application that records, says these messages, records again, and raises."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        for message in messages:
            await send(message)
        doow.track("late")
        raise problem

    return app


STOPS: dict[str, tuple[str, list[Message], list[list[str]], list[list[str]]]] = {
    # The messages said before, and the POSTs under "flush" and under "discard".
    "at once": ("GET", [], [["early", "late"]], []),
    "after the start": ("GET", [START], [["early", "late"]], []),
    "in a stream": ("GET", [START, body(b"a", more_body=True)], [["early", "late"]], []),
    "after the response": ("GET", [START, LAST], [["early"], ["late"]], [["early"], ["late"]]),
    "after a 404": ("GET", [start(404), LAST], [["early"], ["late"]], [["early"], ["late"]]),
    "after a 500": ("GET", [start(500), LAST], [["early"], ["late"]], []),
    "after a 503 for HEAD": ("HEAD", [start(503), body()], [["early"], ["late"]], []),
    "after a 204": ("GET", [start(204), body()], [["early"], ["late"]], [["early"], ["late"]]),
    "after a HEAD's start": ("HEAD", [start(500)], [["early"], ["late"]], []),
}


@pytest.mark.parametrize("on_exception", ["flush", "discard"])
@pytest.mark.parametrize("problem", [LookupError("mine"), SystemExit(3)], ids=["error", "exit"])
@pytest.mark.parametrize("case", STOPS)
def test_an_exception(
    new_tracker: Callable[..., Tracker],
    ingest: Ingest,
    case: str,
    problem: BaseException,
    on_exception: Any,
) -> None:
    """The very one comes out, all that was said was sent, and the events went before it."""
    method, messages, flushed, kept = STOPS[case]
    app = raising(problem, *messages)
    wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url), on_exception=on_exception)
    wire = Wire()
    with pytest.raises(type(problem)) as caught:
        wire.serve(wrapped, http(method))
    assert caught.value is problem
    assert (flushed if on_exception == "flush" else kept) == per_post(ingest)
    assert [id(message) for message in messages] == [id(message) for message in wire.sent]


def test_an_exception_comes_after_the_answer(new_tracker: Callable[..., Tracker]) -> None:
    """What is outside of it, a framework's error page, then has nothing to wait for."""
    log: list[str] = []
    with slow_ingest(log) as server:
        wrapped = DoowMiddleware(raising(LookupError("mine")), tracker=new_tracker(server.url))
        with pytest.raises(LookupError):
            Wire(log=log).serve(wrapped)
        log.append("raised")
    assert log == ["received", "answered", "raised"]


def test_an_exception_of_the_servers(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """The application hears that the client is gone, as ever, and its events are delivered."""
    problem = OSError("the client is gone")
    heard: list[BaseException] = []

    async def send(message: Message) -> None:
        raise problem

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        try:
            await send(start(204))
            await send(body())
        except OSError as error:
            heard.append(error)
            raise

    wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url))
    with pytest.raises(OSError, match="gone") as caught:
        asyncio.run(wrapped(http(), Wire().receive, send))
    assert [problem, problem] == [*heard, caught.value]
    assert per_post(ingest) == [["early"]]


def test_a_500_that_is_returned_is_no_exception(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """Under ``on_exception="discard"`` it counts, since nothing was raised."""
    app = recording(start(500), LAST)
    wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url), on_exception="discard")
    Wire().serve(wrapped)
    assert per_post(ingest) == [["steps"]]


def test_what_succeeded_is_delivered_before_it_is_complete_under_discard(
    new_tracker: Callable[..., Tracker],
) -> None:
    """A response below 500 is held for its events under ``on_exception="discard"`` too."""
    log: list[str] = []
    with slow_ingest(log) as server:
        app = recording(start(404), LAST)
        tracker = new_tracker(server.url)
        Wire(log=log).serve(DoowMiddleware(app, tracker=tracker, on_exception="discard"))
    assert log == ["start", "received", "answered", "body"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_coroutine_that_is_closed(
    new_tracker: Callable[..., Tracker], ingest: Ingest, method: str
) -> None:
    """As by a loop that is torn down, where nothing can be awaited any more."""

    async def ignore(message: Message) -> None:
        pass

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await send(START)
        await receive()

    async def serve() -> None:
        wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url))
        coroutine: Any = wrapped(http(method), Wire().receive, ignore)
        coroutine.send(None)
        coroutine.close()

    asyncio.run(serve())
    # For HEAD it is closed while a flush goes on, whose POST is on its way.
    ingest.wait_for(1)
    assert per_post(ingest) == [["early"]]


# ── cancellation ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("times", [1, 3])
def test_a_task_cancelled_in_the_application(
    new_tracker: Callable[..., Tracker], times: int
) -> None:
    """Its events are delivered before the task ends, and it ends as cancelled."""
    log: list[str] = []
    working: asyncio.Event

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await send(START)
        working.set()
        await receive()

    async def serve(server: Server) -> None:
        nonlocal working
        working = asyncio.Event()
        wrapped = DoowMiddleware(app, tracker=new_tracker(server.url, budget=5.0))
        task = asyncio.create_task(Wire(log=log).run(wrapped))
        await working.wait()
        task.cancel("client gone")
        for _ in range(times - 1):
            await asyncio.to_thread(server.wait_for, 1)
            task.cancel("client gone")
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
        log.append("cancelled")

    with slow_ingest(log) as server:
        asyncio.run(serve(server))
    assert log == ["start", "received", "answered", "cancelled"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_task_cancelled_while_a_message_is_held(
    new_tracker: Callable[..., Tracker], method: str
) -> None:
    """The flush goes on to its end; then the cancellation takes the place of the message."""
    log: list[str] = []

    async def serve(server: Server) -> None:
        app = DoowMiddleware(recording(START, LAST), tracker=new_tracker(server.url, budget=5.0))
        task = asyncio.create_task(Wire(log=log).run(app, http(method)))
        await asyncio.to_thread(server.wait_for, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        log.append("cancelled")

    with slow_ingest(log, pause_s=0.1) as server:
        asyncio.run(serve(server))
    # Whether a start that was held as well is sent at last makes no difference to anyone.
    assert [one for one in log if one != "start"] == ["received", "answered", "cancelled"]


def test_wait_for(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """A time limit around the application ends as one, with the events delivered."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await receive()

    async def serve() -> None:
        wrapped = DoowMiddleware(app, tracker=new_tracker(ingest.url))
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(Wire().run(wrapped), 0.05)
        assert per_post(ingest) == [["early"]]

    asyncio.run(serve())


@pytest.mark.parametrize("when", ["in the application", "while a message is held"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_scope(new_tracker: Callable[..., Tracker], backend: str, when: str) -> None:
    """Of anyio, as Starlette's: no wait in it is possible, and yet the events are delivered."""
    log: list[str] = []

    limit: Any = None

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await send(START)
        if when == "in the application":
            limit.cancel()
            await anyio.sleep(10)
        await send(LAST)

    async def send(message: Message) -> None:
        log.append(message["type"].rpartition(".")[2])
        await anyio.lowlevel.checkpoint()

    async def cancel(server: Server) -> None:
        await anyio.to_thread.run_sync(server.wait_for, 1)
        limit.cancel()

    async def serve(server: Server) -> None:
        nonlocal limit
        limit = anyio.CancelScope()
        wrapped = DoowMiddleware(app, tracker=new_tracker(server.url, budget=5.0))
        async with anyio.create_task_group() as group:
            if when == "while a message is held":
                group.start_soon(cancel, server)
            with limit:
                await wrapped(http(), Wire().receive, send)
                log.append("returned")
            assert limit.cancelled_caught
            log.append("left")

    with slow_ingest(log, pause_s=0.1) as server:
        anyio.run(serve, server, backend=backend)
    # Whether a message whose sending is cancelled was sent is the server's to say.
    assert [one for one in log if one != "body"] == ["start", "received", "answered", "left"]


BUDGET_S = 0.3


class Counting(asyncio.SelectorEventLoop):
    """A loop that counts what it is asked to do."""

    calls = 0

    def call_soon(self, *args: Any, **options: Any) -> asyncio.Handle:  # type: ignore[override]
        self.calls += 1
        return super().call_soon(*args, **options)


def test_a_cancelled_scope_does_not_spin(new_tracker: Callable[..., Tracker]) -> None:
    """Though anyio cancels each wait in it anew, a silent ingest costs time and no work."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await anyio.sleep(10)

    async def serve(url: str) -> float:
        tracker = new_tracker(url, budget=BUDGET_S, dead_letter="off")
        with anyio.CancelScope() as scope:
            scope.cancel()
            began = time.monotonic()
            await DoowMiddleware(app, tracker=tracker)(http(), Wire().receive, Wire().send)
        return time.monotonic() - began

    with unattended() as url, closing(Counting()) as loop:
        took_s = loop.run_until_complete(serve(url))
    assert took_s > 0.8 * BUDGET_S
    assert loop.calls < 100


def test_trio(new_tracker: Callable[..., Tracker]) -> None:
    """The same order there: what completes the response waits, and so does the second flush."""
    log: list[str] = []

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        doow.track("early")
        await send(START)
        await send(LAST)
        doow.track("late")

    async def send(message: Message) -> None:
        log.append(message["type"].rpartition(".")[2])
        await trio.lowlevel.checkpoint()

    async def serve(wrapped: App) -> None:
        await wrapped(http(), Wire().receive, send)
        log.append("returned")

    with slow_ingest(log) as server:
        trio.run(serve, DoowMiddleware(app, tracker=new_tracker(server.url)))
    delivered = ["received", "answered"]
    assert ["start", *delivered, "body", *delivered, "returned"] == log


def test_the_loop_goes_on_while_a_message_is_held(new_tracker: Callable[..., Tracker]) -> None:
    """Other tasks of the server are served meanwhile."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    async def serve(server: Server) -> None:
        task = asyncio.create_task(tick())
        app = DoowMiddleware(
            recording(START, LAST), tracker=new_tracker(server.url, budget=0.3, dead_letter="off")
        )
        await Wire().run(app)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    with Server(silent) as server:
        asyncio.run(serve(server))
    assert ticks >= 20

"""Starlette as users write it, with the middleware added to it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.background import BackgroundTasks as ManyTasks
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware
from tests.metering import per_post
from tests.network import Metronome, Server, silent
from tests.platforms.asgi.apps import DELIVERED, Wire, http, later, slow_ingest
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from fastapi import Request

    from doow_serverless import Tracker
    from doow_serverless.asgi import Message
    from doow_serverless.local import Ingest


def starlette(tracker: Tracker | None, endpoint: Any, *inside: Any) -> Starlette:
    """An application with one endpoint; without a tracker it is bare."""
    app = Starlette(routes=[Route("/", endpoint)])
    for middleware in inside:
        app.add_middleware(middleware)
    if tracker is not None:
        app.add_middleware(DoowMiddleware, tracker=tracker)
    return app


class Passing(BaseHTTPMiddleware):
    """A middleware as users write them: it has the rest run in a task of its own."""

    async def dispatch(self, request: Request, call_next: Any) -> Response:
        doow.track("way in")
        response: Response = await call_next(request)
        doow.track("way out")
        return response


async def plain(request: Request) -> Response:
    doow.track("endpoint")
    return JSONResponse({"größe": "\u2028"})


async def stream(request: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(3):
            doow.track(f"chunk {number}")
            yield b"%d" % number

    return StreamingResponse(chunks())


def threaded(request: Request) -> Response:
    doow.track("endpoint")

    def chunks() -> Iterator[str]:
        doow.track("chunk")
        yield "größe"

    return StreamingResponse(chunks())


async def empty(request: Request) -> Response:
    doow.track("endpoint")
    return Response(status_code=204)


async def background(request: Request) -> Response:
    doow.track("endpoint")
    return Response("done", background=BackgroundTask(doow.track, "task"))


async def backgrounds(request: Request) -> Response:
    doow.track("endpoint")
    tasks = ManyTasks()
    tasks.add_task(doow.track, "task 1")  # Sync, so on a thread.
    tasks.add_task(later, "task 2")
    return Response("done", background=tasks)


ENDPOINTS: dict[str, tuple[Any, list[str], list[list[str]]]] = {
    # What a server sees under GET, and the POSTs.
    "plain": (plain, ["start", *DELIVERED, "body"], [["endpoint"]]),
    "stream": (
        stream,
        ["start", "body", "body", "body", *DELIVERED, "body"],
        [["chunk 0", "chunk 1", "chunk 2"]],
    ),
    "threaded": (threaded, ["start", "body", *DELIVERED, "body"], [["endpoint", "chunk"]]),
    "empty": (empty, [*DELIVERED, "start", "body"], [["endpoint"]]),
    "background": (
        background, ["start", *DELIVERED, "body", *DELIVERED], [["endpoint"], ["task"]],
    ),
    "backgrounds": (
        backgrounds,
        ["start", *DELIVERED, "body", *DELIVERED],
        [["endpoint"], ["task 1", "task 2"]],
    ),
}  # fmt: skip
SPECS: dict[str, dict[str, Any]] = {
    spec: {"asgi": {"version": "3.0", "spec_version": spec}} for spec in ("2.0", "2.4")
}


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("case", ENDPOINTS)
def test_starlette(new_tracker: Callable[..., Tracker], case: str, spec: str) -> None:
    """Before the last of it is sent the ingest has answered, and nothing earlier waits for that."""
    endpoint, expected, _ = ENDPOINTS[case]
    log: list[str] = []
    request = http(**SPECS[spec])
    bare = Wire().serve(starlette(None, endpoint), dict(request)).sent
    with slow_ingest(log) as server:
        wire = Wire(log=log)
        wire.serve(starlette(new_tracker(server.url), endpoint), request)
    assert expected == log
    assert bare == wire.sent


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("case", ENDPOINTS)
def test_base_http_middleware_within(
    new_tracker: Callable[..., Tracker], ingest: Ingest, case: str, method: str
) -> None:
    """Tasks and streams between it and the endpoint change nothing: the same POSTs and bytes."""
    endpoint, _, posts = ENDPOINTS[case]
    expected = [sorted([*posts[0], "way in", "way out"]), *posts[1:]]
    if method == "HEAD" and case == "stream":
        # Complete with its start, which the first chunk is recorded before.
        expected = [["chunk 0", "way in", "way out"], ["chunk 1", "chunk 2"]]
    elif method == "HEAD" and case == "threaded":
        expected = [["endpoint", "way in", "way out"], ["chunk"]]
    bare = Wire().serve(starlette(None, endpoint, Passing), http(method)).sent
    wire = Wire().serve(starlette(new_tracker(ingest.url), endpoint, Passing), http(method))
    assert expected == [sorted(post) for post in per_post(ingest)]
    assert bare == wire.sent


@pytest.mark.parametrize("case", ["plain", "stream", "empty"])
def test_base_http_middleware_around(
    new_tracker: Callable[..., Tracker], ingest: Ingest, case: str
) -> None:
    """Within another's task, whose scope is cancelled at the end, the endpoint's events arrive."""
    endpoint, _, posts = ENDPOINTS[case]

    class Around(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

    app = starlette(new_tracker(ingest.url), endpoint)
    app.add_middleware(Around)
    Wire().serve(app)
    assert posts == per_post(ingest)


def test_a_response_that_is_dropped(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """A middleware around that answers instead cancels the endpoint's: its events arrive."""

    class Instead(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            await call_next(request)
            return Response("instead")

    app = starlette(new_tracker(ingest.url), stream)
    app.add_middleware(Instead)
    wire = Wire().serve(app)
    assert wire.sent[1]["body"] == b"instead"
    ingest.wait_for(1)
    assert [post[:1] for post in per_post(ingest)] == [["chunk 0"]]


def test_a_middleware_that_answers_itself(
    new_tracker: Callable[..., Tracker], ingest: Ingest
) -> None:
    """Without the endpoint's help, what it records is delivered like anything else."""

    class Refusing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            doow.track("refused")
            return Response(status_code=403)

    wire = Wire().serve(starlette(new_tracker(ingest.url), plain, Refusing))
    assert wire.sent[0]["status"] == 403
    assert per_post(ingest) == [["refused"]]


@pytest.mark.parametrize("extensions", [{}, {"http.response.pathsend": {}}], ids=["body", "path"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file(
    new_tracker: Callable[..., Tracker], tmp_path: Path, extensions: Any, method: str
) -> None:
    """Its last chunk waits, or the message that has the server send it whole."""
    (tmp_path / "file").write_bytes(b"x" * 150_000)
    log: list[str] = []

    async def file(request: Request) -> Response:
        doow.track("endpoint")
        return FileResponse(tmp_path / "file")

    scope = http(method, extensions=extensions)
    bare = Wire().serve(starlette(None, file), dict(scope)).sent
    with slow_ingest(log) as server:
        wire = Wire(log=log).serve(starlette(new_tracker(server.url), file), scope)
    assert bare == wire.sent
    held = "pathsend" if extensions and method == "GET" else "body"
    if method == "HEAD":
        assert [*DELIVERED, "start"] == log[:3]
    else:
        assert [*DELIVERED, held] == log[-3:]


@pytest.mark.parametrize("spec", SPECS)
def test_a_client_that_leaves_a_stream(
    new_tracker: Callable[..., Tracker], ingest: Ingest, spec: str
) -> None:
    """However the server tells, and though Starlette cancels the stream, its events arrive."""

    async def endless(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            while True:
                doow.track("chunk")
                yield b"."
                await asyncio.sleep(0.001)

        return StreamingResponse(chunks())

    class Leaving(Wire):
        gone = asyncio.Event()

        async def receive(self) -> Message:
            await self.gone.wait()
            return {"type": "http.disconnect"}

        async def send(self, message: Message) -> None:
            await super().send(message)
            if len(self.sent) >= 4:
                self.gone.set()
                if spec == "2.4":
                    raise OSError("gone")

    app = starlette(new_tracker(ingest.url), endless)
    wire = Leaving()
    if spec == "2.4":
        with pytest.raises(Exception) as caught:  # noqa: PT011  # Starlette's ClientDisconnect
            wire.serve(app, http(**SPECS[spec]))
        assert type(caught.value).__name__ == "ClientDisconnect"
    else:
        wire.serve(app, http(**SPECS[spec]))
    (post,) = per_post(ingest)
    assert set(post) == {"chunk"}
    assert len(post) >= 3


@pytest.mark.parametrize("on_exception", ["flush", "discard"])
def test_an_error_page(
    new_tracker: Callable[..., Tracker], ingest: Ingest, on_exception: Any
) -> None:
    """Starlette's handler of 500 stands outside: it has the exception once all is delivered."""

    async def broken(request: Request) -> Response:
        doow.track("endpoint")
        raise LookupError("mine")

    app = Starlette(routes=[Route("/", broken)])
    app.add_middleware(DoowMiddleware, tracker=new_tracker(ingest.url), on_exception=on_exception)
    wire = Wire()
    with pytest.raises(LookupError, match="mine"):
        wire.serve(app)
    assert [wire.sent[0]["status"], wire.sent[1]["body"]] == [500, b"Internal Server Error"]
    assert ([["endpoint"]] if on_exception == "flush" else []) == per_post(ingest)


def test_a_background_task_that_fails(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """The response was complete: what it counted counts, and so does the task's, as documented."""

    async def failing() -> None:
        doow.track("task")
        raise LookupError("mine")

    async def endpoint(request: Request) -> Response:
        doow.track("endpoint")
        return Response("done", background=BackgroundTask(failing))

    app = Starlette(routes=[Route("/", endpoint)])
    app.add_middleware(DoowMiddleware, tracker=new_tracker(ingest.url), on_exception="discard")
    with pytest.raises(LookupError):
        Wire().serve(app)
    assert per_post(ingest) == [["endpoint"], ["task"]]


def test_a_silent_ingest_and_background_tasks(new_tracker: Callable[..., Tracker]) -> None:
    """Both flushes together cost one budget, under a framework with tasks of its own too."""
    with Server(silent) as server, Metronome() as noise:
        tracker = new_tracker(server.url, budget=0.3, dead_letter="off")
        app = starlette(tracker, backgrounds, Passing)
        began = time.monotonic()
        Wire().serve(app)
        took_s = time.monotonic() - began
    within(took_s, 0.4 + noise.worst_s, at_least_s=0.25)

"""Mangum: ASGI applications on Lambda, one request for each invocation, on a loop that stops."""

from __future__ import annotations

import asyncio
import base64
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import mangum
import pytest
from fastapi import BackgroundTasks, FastAPI, Response

import doow_serverless as doow
from doow_serverless._recording.scope import current
from doow_serverless.asgi import DoowMiddleware
from doow_serverless.local import Fault
from tests.lambda_context import LambdaContext
from tests.metering import per_post
from tests.network import Metronome
from tests.platforms.asgi.apps import unattended
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from doow_serverless import Tracker
    from doow_serverless.local import Ingest


def event(path: str, method: str = "GET") -> dict[str, Any]:
    """A request as API Gateway's HTTP APIs pass it, format 2.0."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "api.example.com"},
        "requestContext": {
            "http": {
                "method": method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "192.0.2.1",
            },
            "requestId": "JKJaXmPLvHcESHA=",
            "stage": "$default",
        },
        "isBase64Encoded": False,
    }


@pytest.fixture(autouse=True)
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop that Mangum finds, and keeps for all invocations."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    asyncio.set_event_loop(None)


def adapted(app: Any, lifespan: Any = "auto") -> Any:
    """The handler of an application."""
    return mangum.Mangum(app, lifespan=lifespan)


def application(tracker: Tracker | None, *phases: str) -> FastAPI:
    """An application that records in these phases of its life, and at each request."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if "up" in phases:
            (tracker or doow).track("up")
        yield
        if "down" in phases:
            (tracker or doow).track("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/plain")
    async def plain() -> dict[str, str]:
        doow.track("plain")
        return {"größe": "text"}

    @app.get("/background")
    def background(tasks: BackgroundTasks) -> Response:
        doow.track("background")
        tasks.add_task(doow.track, "task")
        return Response(b"\x00\xff", media_type="image/png")

    @app.delete("/empty", status_code=204)
    async def empty() -> None:
        doow.track("empty")

    @app.get("/error")
    async def error() -> None:
        doow.track("error")
        raise LookupError("mine")

    if tracker is not None:
        app.add_middleware(DoowMiddleware, tracker=tracker)
    return app


CASES = {
    ("GET", "/plain"): [["plain"]],
    ("GET", "/background"): [["background"], ["task"]],
    ("DELETE", "/empty"): [["empty"]],
    ("GET", "/error"): [["error"]],
    ("GET", "/missing"): [],
}


@pytest.mark.parametrize("lifespan", ["auto", "off"])
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_an_invocation(
    new_tracker: Callable[..., Tracker], ingest: Ingest, case: tuple[str, str], lifespan: str
) -> None:
    """What goes back is what the bare application gives, and every event has arrived."""
    method, path = case
    ingest.fault(Fault(delay_s=0.03, times=None))
    expected = adapted(application(None), lifespan)(event(path, method), LambdaContext())
    handler = adapted(application(new_tracker(ingest.url)), lifespan=lifespan)
    for _ in range(3):
        assert expected == handler(event(path, method), LambdaContext())
        assert CASES[case] == per_post(ingest)
        assert current.get() is None
        ingest.reset()
        ingest.fault(Fault(delay_s=0.03, times=None))


def test_bytes_that_are_no_text(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """They come back in base64, unharmed."""
    response = adapted(application(new_tracker(ingest.url)))(event("/background"), LambdaContext())
    assert base64.b64decode(response["body"]) == b"\x00\xff"


def test_a_life_for_each_invocation(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """Up and down each time: the start's events go with the request, the end's on their own."""
    handler = adapted(application(new_tracker(ingest.url), "up", "down"))
    for _ in range(2):
        handler(event("/plain"), LambdaContext())
        assert per_post(ingest) == [["plain", "up"], ["down"]]
        ingest.reset()


@pytest.mark.parametrize("idempotent", [False, True])
@pytest.mark.parametrize("path", ["/plain", "/background"])
def test_mangum_in_tracked(
    new_tracker: Callable[..., Tracker], ingest: Ingest, path: str, idempotent: bool
) -> None:
    """The handler's end delivers: its life, its request and its tasks leave in one POST."""
    tracker = new_tracker(ingest.url)
    handler = adapted(application(tracker, "up", "down"))
    tracked = tracker.tracked(idempotent=idempotent)(handler)
    requests = ["background", "task"] if path == "/background" else ["plain"]
    for _ in range(2):
        assert tracked(event(path), LambdaContext())["statusCode"] == 200
        (post,) = per_post(ingest)
        assert sorted([*requests, "up", "down"]) == sorted(post)
        ingest.reset()


@pytest.mark.parametrize("left_s", [0.1, 0.5])
@pytest.mark.parametrize("path", ["/plain", "/background"])
def test_the_deadline(new_tracker: Callable[..., Tracker], path: str, left_s: float) -> None:
    """A silent ingest holds an invocation up until the reserve before Lambda's deadline at most."""
    context = LambdaContext(60000)
    with unattended() as url, Metronome() as noise:
        tracker = new_tracker(url, budget=5.0, dead_letter="off")
        handler = adapted(application(tracker))
        handler(event("/missing"), context)  # What is imported at the first request costs nothing.
        began, context = time.monotonic(), LambdaContext(left_s * 1000)
        assert handler(event(path), context)["statusCode"] == 200
        took_s = time.monotonic() - began
    within(took_s, max(0.0, left_s - 0.25) + 0.08 + noise.worst_s)


def test_the_deadline_at_the_end_of_a_life(new_tracker: Callable[..., Tracker]) -> None:
    """Of that, Mangum does not tell the application; what it records last may not overrun it."""
    with unattended() as url, Metronome() as noise:
        tracker = new_tracker(url, budget=2.0, dead_letter="off")
        handler = adapted(application(tracker, "down"))
        began = time.monotonic()
        handler(event("/missing"), LambdaContext(600))
        took_s = time.monotonic() - began
    within(took_s, 0.6 + noise.worst_s)


def test_an_idempotent_request(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """Done again under the same request id it records the same events, which count once."""
    app = application(None)
    app.add_middleware(DoowMiddleware, tracker=new_tracker(ingest.url), idempotent=True)
    handler = adapted(app, lifespan="off")
    for _ in range(2):
        handler(event("/plain"), LambdaContext())
    assert [post.duplicate for post in ingest.posts()] == [False, True]
    assert per_post(ingest) == [["plain"]] * 2


def test_a_loop_for_each_invocation(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """20 loops, one after the other, each closed: nothing of ours holds on to one."""
    handler = adapted(application(new_tracker(ingest.url)), lifespan="off")
    for _ in range(20):
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        handler(event("/background"), LambdaContext())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    assert per_post(ingest) == [["background"], ["task"]] * 20

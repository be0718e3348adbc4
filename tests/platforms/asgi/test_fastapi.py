"""FastAPI as users write it, with the middleware added to it."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, WebSocket
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, WebSocketRoute

import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware
from tests.metering import per_post
from tests.platforms.asgi.apps import DELIVERED, Wire, http, later, slow_ingest, websocket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from doow_serverless import Tracker
    from doow_serverless.local import Ingest


def depends() -> Iterator[str]:
    doow.track("before")
    yield "value"
    doow.track("after")


async def adepends() -> AsyncIterator[str]:
    doow.track("before async")
    yield "value"
    doow.track("after async")


def fastapi(tracker: Tracker | None) -> FastAPI:
    app = FastAPI()

    @app.get("/async")
    async def asynchronous(name: str = "x") -> dict[str, str]:
        doow.track("endpoint", attribution={"name": name})
        return {"name": name}

    @app.get("/sync")
    def synchronous() -> dict[str, str]:
        doow.track("endpoint")
        return {"on": "a thread"}

    @app.get("/depends")
    def depending(
        first: Annotated[str, Depends(depends)], second: Annotated[str, Depends(adepends)]
    ) -> list[str]:
        doow.track("endpoint")
        return [first, second]

    @app.get("/tasks")
    def tasks(tasks: BackgroundTasks) -> str:
        tasks.add_task(doow.track, "task 1")
        tasks.add_task(later, "task 2")
        doow.track("endpoint")
        return "done"

    @app.get("/refused")
    async def refused() -> None:
        doow.track("endpoint")
        raise HTTPException(402, "no credit")

    if tracker is not None:
        app.add_middleware(DoowMiddleware, tracker=tracker)
    return app


ROUTES = {
    "/async": [["endpoint"]],
    "/sync": [["endpoint"]],
    "/tasks": [["endpoint"], ["task 1", "task 2"]],
    "/refused": [["endpoint"]],
    "/depends": [["before", "before async", "endpoint"], ["after", "after async"]],
    "/none": [],
    "/openapi.json": [],
}


@pytest.mark.parametrize("path", ROUTES)
def test_fastapi(new_tracker: Callable[..., Tracker], ingest: Ingest, path: str) -> None:
    """Endpoints on the loop and on threads, what they depend on, and what they leave behind."""
    bare = Wire({"type": "http.request"}).serve(fastapi(None), http(path=path)).sent
    wire = Wire({"type": "http.request"})
    wire.serve(fastapi(new_tracker(ingest.url)), http(path=path))
    assert bare == wire.sent
    assert [sorted(post) for post in ROUTES[path]] == [sorted(post) for post in per_post(ingest)]


@pytest.mark.parametrize("ends", ["closes", "raises", "client leaves"])
def test_a_fastapi_session(new_tracker: Callable[..., Tracker], ingest: Ingest, ends: str) -> None:
    """A websocket endpoint's events arrive, whoever ends the session."""
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(session: WebSocket) -> None:
        await session.accept()
        doow.track("accepted")
        doow.track(await session.receive_text())
        if ends == "closes":
            await session.close()
        elif ends == "raises":
            raise LookupError("mine")
        else:
            await session.receive_text()

    app.add_middleware(DoowMiddleware, tracker=new_tracker(ingest.url))
    wire = Wire(
        {"type": "websocket.connect"},
        {"type": "websocket.receive", "text": "hello"},
        {"type": "websocket.disconnect", "code": 1001},
    )
    with nullcontext() if ends == "closes" else suppress(Exception):
        wire.serve(app, websocket())
    assert per_post(ingest) == [["accepted", "hello"]]


def test_a_denied_session(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """An HTTP answer to a websocket's handshake waits for its events, too."""
    log: list[str] = []

    async def deny(session: WebSocket) -> None:
        doow.track("denied")
        await session.send_denial_response(Response("no", 403))

    app = Starlette(routes=[WebSocketRoute("/", deny)])
    extensions: dict[str, Any] = {"websocket.http.response": {}}
    with slow_ingest(log) as server:
        app.add_middleware(DoowMiddleware, tracker=new_tracker(server.url))
        wire = Wire({"type": "websocket.connect"}, log=log)
        wire.serve(app, websocket(extensions=extensions))
    assert ["start", *DELIVERED, "body"] == log
    assert wire.sent[0]["status"] == 403


def test_a_mounted_application(new_tracker: Callable[..., Tracker], ingest: Ingest) -> None:
    """One within another, both with the middleware: one POST."""
    tracker = new_tracker(ingest.url)
    app = Starlette(routes=[Mount("/sub", app=fastapi(tracker))])
    app.add_middleware(DoowMiddleware, tracker=tracker)
    Wire({"type": "http.request"}).serve(app, http(path="/sub/sync"))
    assert per_post(ingest) == [["endpoint"]]

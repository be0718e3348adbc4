"""Requests of one connection, on uvicorn's own loop: whatever it carries over, none sees another's.

Where a body is larger than 64 KB, or requests are sent ahead, uvicorn hears of the next request in
the context of the one before.
"""

from __future__ import annotations

import asyncio
import http.client
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from doow_serverless.local import Ingest

LARGE = b"x" * 300_000


@contextmanager
def serving(app: ASGIApp) -> Iterator[tuple[str, int]]:
    """The address of uvicorn, which serves ``app`` on asyncio's loop."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, loop="asyncio", log_level="warning"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield listener.getsockname()
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def bodies(over: asyncio.Event) -> tuple[Callable[..., object], Callable[..., object]]:
    """Endpoints: one that reads an upload and works on after its answer, and one that records."""

    async def upload(request: Request) -> JSONResponse:
        await asyncio.sleep(0.1)  # It looks something up before it reads the body.
        await request.body()
        doow.track("uploads")
        return JSONResponse({}, background=BackgroundTask(over.wait))

    async def report(_: Request) -> JSONResponse:
        doow.track("reports")
        return JSONResponse({})

    return upload, report


def routes(over: asyncio.Event, how: str) -> ASGIApp:
    upload, report = bodies(over)
    if how == "tracked endpoints":
        first = doow.tracked(license_id="lic_first")(upload)
        second = doow.tracked(license_id="lic_second")(report)
        return Starlette(
            routes=[Route("/upload", first, methods=["POST"]), Route("/report", second)]
        )
    one = Starlette(routes=[Route("/upload", upload, methods=["POST"])])
    other = Starlette(routes=[Route("/report", report)])
    return Starlette(
        routes=[
            Mount(
                "/report",
                DoowMiddleware(Starlette(routes=[Route("/", report)]), license_id="lic_second"),
            ),
            Mount("/", DoowMiddleware(one, license_id="lic_first")),
        ]
        if how == "middleware"
        else [
            Mount(
                "/report",
                Starlette(routes=[Route("/", doow.tracked(license_id="lic_second")(report))]),
            ),
            Mount("/bare", other),
            Mount("/", DoowMiddleware(one, license_id="lic_first")),
        ]
    )


@pytest.mark.parametrize("body", [b"x", LARGE], ids=["small", "large"])
@pytest.mark.parametrize("how", ["middleware", "tracked endpoints", "one of each"])
def test_a_request_is_nobody_elses(how: str, body: bytes, ingest: Ingest) -> None:
    """Its events have its own license, and are there with its answer, though the other goes on."""
    doow.configure("dk_" + "0" * 64, endpoint=ingest.url, license_id="lic_default", environ={})
    over = asyncio.Event()
    path = "/report" if how == "tracked endpoints" else "/report/"
    with serving(routes(over, how)) as address:
        client = http.client.HTTPConnection(*address)
        client.request("POST", "/upload", body=body)
        assert client.getresponse().read() == b"{}"
        client.request("GET", path)
        assert client.getresponse().read() == b"{}"
        found = [(e["measurements"][0]["metric_name"], e["license_id"]) for e in ingest.events()]
        client.close()
        over._loop.call_soon_threadsafe(over.set)  # type: ignore[attr-defined]
    assert sorted(found) == [("reports", "lic_second"), ("uploads", "lic_first")]

"""Web applications and HTTP streams on Azure: what a response records is due before its end."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from doow_serverless.local import Fault, Ingest
from tests.network import Server, silent
from tests.platforms.azure.apps import both_ends, settings, write_v2
from tests.runtimes.azure.host import AzureHost, HttpRequest, HttpResponse, http_request, pythons

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.runtimes.azure.host import Invocation


DELAY_S = 0.02


@pytest.fixture
def ingest() -> Iterator[Ingest]:
    with Ingest() as ingest:
        forget(ingest)
        yield ingest


def forget(ingest: Ingest) -> None:
    """Begin anew, and still take time for each answer."""
    ingest.reset()
    ingest.fault(Fault(delay_s=DELAY_S, times=None))


def posts(ingest: Ingest) -> list[list[str]]:
    """The metrics of each POST."""
    return [
        [event["measurements"][0]["metric_name"] for event in post.json()["events"]]
        for post in ingest.posts()
    ]


ASGI = """
import azure.functions as func
import doow_serverless as doow
from doow_serverless.asgi import DoowMiddleware
from doow_serverless.azure import track_app
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse

api = FastAPI()

@api.post("/api/items/{n}")
async def item(n: int, tasks: BackgroundTasks):
    doow.track("items")
    doow.track("sizes", n)
    return {"n": n}

@api.post("/api/background/{n}")
def background(n: int, tasks: BackgroundTasks):
    doow.track("items")
    tasks.add_task(doow.track, "later", n)
    return {"n": n}

@api.post("/api/stream/{n}")
async def stream(n: int):
    async def parts():
        for each in range(n):
            doow.track("parts")
            yield f"{each} "
    doow.track("items")
    return StreamingResponse(parts())

@api.post("/api/broken/{n}")
async def broken(n: int):
    doow.track("items")
    raise LookupError(n)

api.add_middleware(DoowMiddleware)
app = func.AsgiFunctionApp(app=api, http_auth_level=func.AuthLevel.FUNCTION)
"""

WSGI = """
import azure.functions as func
import doow_serverless as doow
from doow_serverless.azure import track_app
from doow_serverless.wsgi import DoowMiddleware
from flask import Flask

flask = Flask(__name__)

@flask.post("/api/items/<int:n>")
def item(n):
    doow.track("items")
    doow.track("sizes", n)
    return {"n": n}

@flask.post("/api/stream/<int:n>")
def stream(n):
    def parts():
        for each in range(n):
            doow.track("parts")
            yield f"{each} "
    doow.track("items")
    return parts(), 202

@flask.post("/api/broken/<int:n>")
def broken(n):
    doow.track("items")
    raise LookupError(n)

flask.wsgi_app = DoowMiddleware(flask.wsgi_app)
app = func.WsgiFunctionApp(app=flask.wsgi_app, http_auth_level=func.AuthLevel.FUNCTION)
"""

MIDDLEWARE = "api.add_middleware(DoowMiddleware)", "flask.wsgi_app = DoowMiddleware(flask.wsgi_app)"
TRACKING = {"bare": (True, ""), "middleware": (False, ""), "both": (False, "track_app(app)"),
            "app": (True, "track_app(app)")}  # fmt: skip
REQUESTS = {
    ASGI: {
        "items": [["items", "sizes"]],
        "background": [["items"], ["later"]],
        "stream": [["items", "parts", "parts"]],
        "broken": [["items"]],
    },
    WSGI: {
        "items": [["items", "sizes"]],
        "stream": [["items", "parts", "parts"]],
        "broken": [["items"]],
    },
}


def variant(source: str, kind: str) -> str:
    without_middleware, more = TRACKING[kind]
    for line in MIDDLEWARE if without_middleware else ():
        source = source.replace(line, "")
    return f"{source}{more}\n"


def content(reply: Invocation) -> tuple[object, ...]:
    """What the client gets, or the host for an error."""
    if reply.error is not None:
        return reply.error.type, reply.error.message
    assert isinstance(reply.return_value, HttpResponse)
    return reply.return_value.status, reply.return_value.headers, reply.return_value.body


@pytest.mark.parametrize("source", [ASGI, WSGI], ids=["asgi", "wsgi"])
def test_web_applications(source: str, ingest: Ingest, tmp_path: Path) -> None:
    """Responses are as without us, and one POST each, background tasks besides, came before."""
    answers = {}
    for kind in TRACKING:
        app = write_v2(tmp_path / kind, variant(source, kind))
        env = settings(ingest.url, DOOW_TRACK_DISABLED="true" if kind == "bare" else "")
        with AzureHost(app, python=pythons()[-1], model="v2", env=env) as host:
            assert host.index_error is None
            for path, expected in REQUESTS[source].items():
                request = http_request("POST", f"http://localhost/api/{path}/2", body=b"x")
                is_last = path == "broken"
                reply = host.invoke("http_app_func", {"req": request}, kill=is_last)
                answers[kind, path] = content(reply)
                if kind == "bare":
                    assert posts(ingest) == []
                    continue
                # Where the function is tracked, that is outermost, and delivers when all is done.
                all_at_once = [[metric for post in expected for metric in post]]
                assert posts(ingest) == (expected if kind == "middleware" else all_at_once)
                assert ingest.posts()[-1].received_at + DELAY_S <= reply.responded_at
                forget(ingest)
    for kind in TRACKING:
        assert {path: answers[kind, path] for path in REQUESTS[source]} == {
            path: answers["bare", path] for path in REQUESTS[source]
        }


@both_ends
@pytest.mark.parametrize("source", [ASGI, WSGI], ids=["asgi", "wsgi"])
def test_many_requests(python: Path, source: str, ingest: Ingest, tmp_path: Path) -> None:
    """At the same time, under every interpreter: each request has its own POST."""
    app = write_v2(tmp_path / "app", source)
    with AzureHost(app, python=python, model="v2", env=settings(ingest.url)) as host:
        started = {
            n: host.start(
                "http_app_func",
                {"req": http_request("POST", f"http://localhost/api/items/{n}", body=b"x")},
            )
            for n in range(1, 21)
        }
        for n, future in started.items():
            reply = future.result(20)
            assert json.loads(reply.return_value.body) == {"n": n}
            sizes = [event["measurements"][0]["quantity"] for event in ingest.events()]
            assert n in sizes
    assert posts(ingest) == [["items", "sizes"]] * 20


STREAMING = """
import asyncio
import azure.functions as func
import doow_serverless as doow
from azurefunctions.extensions.http.fastapi import JSONResponse, Request, StreamingResponse

app = func.FunctionApp()

@app.route(route="asynchronous", methods=["POST"])
@TRACKED
async def asynchronous(req: Request) -> StreamingResponse:
    body = await req.body()
    async def parts():
        yield b"begin "
        for number in range(3):
            doow.track("parts", attribution={"number": number})
            await asyncio.sleep(0.05)
            yield f"{number} ".encode() + body
        doow.track("end")
    doow.track("before")
    return StreamingResponse(parts(), status_code=202, headers={"x-answer": "42"})

@TRACKED
@app.route(route="synchronous", methods=["POST"])
async def synchronous(req: Request, context: func.Context) -> StreamingResponse:
    def parts():
        yield context.function_name
        for number in range(3):
            doow.track("parts", attribution={"number": number})
            yield f" {number}"
        doow.track("end")
    doow.track("before")
    return StreamingResponse(parts(), media_type="text/plain")

@app.route(route="in_a_thread", methods=["POST"])
@TRACKED
def in_a_thread(req: Request) -> StreamingResponse:
    async def parts():
        yield "begin"
        doow.track("end")
    doow.track("before")
    return StreamingResponse(parts())

@app.route(route="broken", methods=["POST"])
@TRACKED
async def broken(req: Request) -> StreamingResponse:
    async def parts():
        doow.track("parts")
        yield b"first"
        await asyncio.sleep(0.05)
        raise ValueError("in the body")
    return StreamingResponse(parts())

@app.route(route="plain", methods=["POST"])
@TRACKED
async def plain(req: Request) -> JSONResponse:
    doow.track("before")
    return JSONResponse({"n": 1})

@app.route(route="quiet", methods=["POST"])
@TRACKED
async def quiet(req: Request) -> StreamingResponse:
    async def parts():
        yield "begin"
        doow.track("end")
    return StreamingResponse(parts())
"""
STREAMS = {
    "asynchronous": [["before"], ["parts", "parts", "parts", "end"]],
    "synchronous": [["before"], ["parts", "parts", "parts", "end"]],
    "in_a_thread": [["before"], ["end"]],
    "broken": [["parts"]],
    "plain": [["before"]],
    "quiet": [["end"]],
}


@contextmanager
def streaming(app: Path, python: Path, env: dict[str, str]) -> Iterator[AzureHost]:
    """A host whose worker accepts connections: it names its server before that has started."""
    with AzureHost(app, python=python, model="v2", env=env) as host:
        assert host.index_error is None
        server = urlsplit(host.http_uri)
        give_up = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((str(server.hostname), server.port or 0)).close()
            except ConnectionRefusedError:
                assert time.monotonic() < give_up
                time.sleep(0.02)
            else:
                break
        yield host


@both_ends
def test_streams(python: Path, ingest: Ingest, tmp_path: Path) -> None:
    """A body is the same to the byte; what was recorded before it and in it came before its end."""
    bodies = {}
    for kind, decorator in (("bare", ""), ("tracked", "@doow.tracked")):
        app = write_v2(tmp_path / kind, STREAMING.replace("@TRACKED", decorator))
        env = settings(ingest.url, DOOW_TRACK_DISABLED="true" if kind == "bare" else "")
        with streaming(app, python, env) as host:
            for name, expected in STREAMS.items():
                exchange = host.http(name, "POST", f"/api/{name}", body=b"body ")
                headers = {key: exchange.headers[key] for key in exchange.headers if key != "date"}
                bodies[kind, name] = exchange.status, headers, exchange.body, exchange.complete
                assert exchange.invocation.error is None
                assert posts(ingest) == ([] if kind == "bare" else expected)
                if expected[0] == ["before"] and kind == "tracked":
                    first = ingest.posts()[0].received_at
                    assert first + DELAY_S <= exchange.invocation.responded_at
                    assert first + DELAY_S <= exchange.chunks[0][0]
                forget(ingest)
    assert {name: bodies["tracked", name] for name in STREAMS} == {
        name: bodies["bare", name] for name in STREAMS
    }


def test_worker_killed_at_the_end_of_a_stream(ingest: Ingest, tmp_path: Path) -> None:
    """Nothing needs the worker any more once the body is complete."""
    app = write_v2(tmp_path / "app", STREAMING.replace("@TRACKED", "@doow.tracked"))
    for name in ("asynchronous", "synchronous", "quiet"):
        with streaming(app, pythons()[-1], settings(ingest.url)) as host:
            host.http(name, "POST", f"/api/{name}", body=b"body ", kill=True)
            assert posts(ingest) == STREAMS[name]
        forget(ingest)


ABANDONED = """
import asyncio
import azure.functions as func
import doow_serverless as doow
from azurefunctions.extensions.http.fastapi import Request, StreamingResponse

app = func.FunctionApp()

@app.route(route="endless")
@doow.tracked
async def endless(req: Request) -> StreamingResponse:
    size = int(req.query_params["size"])
    async def parts():
        number = 0
        try:
            while True:
                doow.track("parts")
                number += 1
                yield b"x" * size
                await asyncio.sleep(0.02)
        finally:
            print(f"recorded {number}.", flush=True)
    return StreamingResponse(parts())
"""


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_client_that_goes_away(size: int, ingest: Ingest, tmp_path: Path) -> None:
    """What was recorded until then arrives, whether or not the client took what was sent."""
    app = write_v2(tmp_path / "app", ABANDONED)
    with streaming(app, pythons()[-1], settings(ingest.url)) as host:
        asked = host._request("endless", {"req": HttpRequest("", "", {}, b"", {})}, None, None)
        started = host._bridge.invoke(asked)
        server = urlsplit(host.http_uri)
        connection = http.client.HTTPConnection(str(server.hostname), server.port, timeout=10)
        headers = {"x-ms-invocation-id": asked["invocationId"]}
        connection.request("GET", f"/api/endless?size={size}", headers=headers)
        response = connection.getresponse()
        for _ in range(3):
            response.read(1)
            time.sleep(0.05)
        response.close()
        connection.close()
        assert started.result(10).ok
        ingest.wait_for(1)
        for _ in range(200):
            if found := re.findall(r"recorded (\d+)\.", host.stdout):
                break
            time.sleep(0.02)
    assert [len(ingest.events())] == [int(number) for number in found]


BUDGET_S = 0.5


@pytest.mark.parametrize("name", ["asynchronous", "synchronous"])
def test_a_silent_ingest_delays_a_stream_by_one_budget(name: str, tmp_path: Path) -> None:
    """In all: before its first chunk, for what was recorded before it, and before its end."""
    app = write_v2(tmp_path / "app", STREAMING.replace("@TRACKED", "@doow.tracked"))
    with Server(silent) as server:
        env = settings(server.url, DOOW_TRACK_BUDGET=str(int(BUDGET_S * 1000)))
        with streaming(app, pythons()[-1], env) as host:
            begin = time.monotonic()
            exchange = host.http(name, "POST", f"/api/{name}", body=b"body ")
            end = time.monotonic()
    assert exchange.complete
    first_s = exchange.chunks[0][0] - begin
    assert BUDGET_S - 0.05 <= first_s < BUDGET_S + 0.3
    assert end - exchange.chunks[0][0] < 3 * 0.05 + 0.3

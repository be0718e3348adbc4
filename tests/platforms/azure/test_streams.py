"""HTTP streams on Azure: what a body records is due before its end, and delays no chunk."""

from __future__ import annotations

import http.client
import re
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from doow_serverless.local.azure.host import AzureHost, HttpRequest
from tests.metering import per_post
from tests.network import Server, silent
from tests.platforms.azure.apps import DELAY_S, both_ends, forget, settings, write_v2
from tests.runtimes.azure.environments import pythons
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from doow_serverless.local import Ingest


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
def test_streams(python: Path, slow_ingest: Ingest, tmp_path: Path) -> None:
    """A body is the same to the byte; what was recorded before it and in it came before its end."""
    bodies = {}
    for kind, decorator in (("bare", ""), ("tracked", "@doow.tracked")):
        app = write_v2(tmp_path / kind, STREAMING.replace("@TRACKED", decorator))
        env = settings(slow_ingest.url, DOOW_TRACK_DISABLED="true" if kind == "bare" else "")
        with streaming(app, python, env) as host:
            for name, expected in STREAMS.items():
                exchange = host.http(name, "POST", f"/api/{name}", body=b"body ")
                headers = {key: exchange.headers[key] for key in exchange.headers if key != "date"}
                bodies[kind, name] = exchange.status, headers, exchange.body, exchange.complete
                assert exchange.invocation.error is None
                assert per_post(slow_ingest) == ([] if kind == "bare" else expected)
                if expected[0] == ["before"] and kind == "tracked":
                    first = slow_ingest.posts()[0].received_at
                    assert first + DELAY_S <= exchange.invocation.responded_at
                    assert first + DELAY_S <= exchange.chunks[0][0]
                forget(slow_ingest)
    assert {name: bodies["tracked", name] for name in STREAMS} == {
        name: bodies["bare", name] for name in STREAMS
    }


def test_worker_killed_at_the_end_of_a_stream(slow_ingest: Ingest, tmp_path: Path) -> None:
    """Nothing needs the worker any more once the body is complete."""
    app = write_v2(tmp_path / "app", STREAMING.replace("@TRACKED", "@doow.tracked"))
    for name in ("asynchronous", "synchronous", "quiet"):
        with streaming(app, pythons()[-1], settings(slow_ingest.url)) as host:
            host.http(name, "POST", f"/api/{name}", body=b"body ", kill=True)
            assert per_post(slow_ingest) == STREAMS[name]
        forget(slow_ingest)


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
def test_a_client_that_goes_away(size: int, slow_ingest: Ingest, tmp_path: Path) -> None:
    """What was recorded until then arrives, whether or not the client took what was sent."""
    app = write_v2(tmp_path / "app", ABANDONED)
    with streaming(app, pythons()[-1], settings(slow_ingest.url)) as host:
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
        slow_ingest.wait_for(1)
        for _ in range(200):
            if found := re.findall(r"recorded (\d+)\.", host.stdout):
                break
            time.sleep(0.02)
    assert [len(slow_ingest.events())] == [int(number) for number in found]


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
    within(first_s, BUDGET_S + 0.3, at_least_s=BUDGET_S - 0.05)
    within(end - exchange.chunks[0][0], 3 * 0.05 + 0.3)

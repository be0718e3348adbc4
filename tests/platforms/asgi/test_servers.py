"""ASGI servers in processes of their own: uvicorn, hypercorn on both loops, gunicorn."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from doow_serverless.local import Fault, Ingest
from tests.metering import metrics
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    Serve = Callable[..., AbstractContextManager["Served"]]

import wsproto
from wsproto import events

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets are inherited")

APP = dedent(
    """
    import os
    from contextlib import asynccontextmanager

    import anyio
    import doow_serverless as doow
    from doow_serverless.asgi import DoowMiddleware
    from fastapi import BackgroundTasks, FastAPI, Response, WebSocket
    from fastapi.responses import StreamingResponse
    from starlette.middleware.base import BaseHTTPMiddleware

    @asynccontextmanager
    async def lifespan(app):
        yield
        doow.track("down")

    app = FastAPI(lifespan=lifespan)

    @app.get("/plain")
    async def plain():
        doow.track("plain")
        return {"größe": "text"}

    @app.get("/threaded")
    def threaded():
        doow.track("threaded")
        return {"on": "a thread"}

    @app.api_route("/stream", methods=["GET", "HEAD"])
    async def stream():
        async def chunks():
            for number in range(3):
                doow.track("stream")
                yield b"%d" % number * 1000
        return StreamingResponse(chunks())

    @app.head("/head")
    async def head():
        doow.track("head")
        return Response(headers={"Content-Length": "1000"})

    @app.delete("/empty")
    async def empty():
        doow.track("empty")
        return Response(status_code=204)

    @app.get("/unchanged")
    async def unchanged():
        doow.track("unchanged")
        return Response(status_code=304)

    @app.get("/background")
    async def background(tasks: BackgroundTasks):
        doow.track("background")
        tasks.add_task(doow.track, "task")
        return Response("done")

    @app.get("/error")
    async def error():
        doow.track("error")
        raise LookupError("mine")

    @app.get("/who")
    async def who(name: str):
        for number in range(2):
            doow.track("who", attribution={"name": name})
            await anyio.sleep(0.001)
        return Response(name)

    @app.get("/endless")
    async def endless():
        async def chunks():
            while True:
                doow.track("endless")
                yield b"." * 10_000
                await anyio.sleep(0.01)
        return StreamingResponse(chunks())

    @app.websocket("/session")
    async def session(websocket: WebSocket):
        await websocket.accept()
        async for text in websocket.iter_text():
            doow.track("session")
            await websocket.send_text(text)
            if text == "end":
                await websocket.close()
                return

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request, call_next):
            return await call_next(request)

    app.add_middleware(Passing)
    if "BARE" not in os.environ:
        app.add_middleware(DoowMiddleware)
    """
)
SERVERS = {
    "uvicorn": "uvicorn app:app --fd {fd} --ws wsproto --lifespan on --log-level error",
    "hypercorn": "hypercorn app:app --bind fd://{fd}",
    "hypercorn on trio": "hypercorn app:app --bind fd://{fd} --worker-class trio",
    "gunicorn": "gunicorn app:app --bind fd://{fd} --worker-class asgi --log-level error",
}
REQUESTS = {
    "GET /plain": ["plain"],
    "GET /threaded": ["threaded"],
    "GET /stream": ["stream"] * 3,
    "HEAD /head": ["head"],
    "DELETE /empty": ["empty"],
    "GET /unchanged": ["unchanged"],
    "GET /missing": [],
    "GET /background": ["background"],
    "GET /error": ["error"],  # The last, since a server may close the connection after it.
}


class Served:
    """A server's process, and clients of it."""

    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.port = port
        self.process = process

    @contextmanager
    def connected(self) -> Iterator[http.client.HTTPConnection]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        yield connection
        connection.close()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20)


@pytest.fixture(params=SERVERS)
def serve(request: pytest.FixtureRequest, tmp_path: Path, ingest: Ingest) -> Serve:
    """Runs a server for the application above, with the middleware or bare."""
    (tmp_path / "app.py").write_text(APP)

    @contextmanager
    def serve(**env: str) -> Iterator[Served]:
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            fd = listener.fileno()
            command = SERVERS[request.param].format(fd=fd)
            process = subprocess.Popen(
                [sys.executable, "-m", *command.split()],
                cwd=tmp_path,
                pass_fds=[fd],
                start_new_session=True,  # Some have workers, which must not outlive the test.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "DOOW_TRACK_API_KEY": KEY,
                    "DOOW_TRACK_ENDPOINT": ingest.url,
                    "DOOW_TRACK_LICENSE_ID": "lic_1",
                    **env,
                },
            )
            port = listener.getsockname()[1]
        try:
            yield Served(port, process)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)

    return serve


def answer(connection: http.client.HTTPConnection, request: str) -> tuple[int, list[Any], bytes]:
    """Status, headers and body of the answer to a request, once its last byte has come."""
    method, path = request.split()
    connection.request(method, path)
    response = connection.getresponse()
    content = response.read()
    headers = [(name, value) for name, value in response.getheaders() if name.lower() != "date"]
    return response.status, headers, content


def test_a_server(serve: Serve, ingest: Ingest) -> None:
    """On one connection: every answer as of the bare application, every event there before it."""
    ingest.fault(Fault(delay_s=0.03, times=None))
    bare, answers = [], []
    with serve(BARE="1", DOOW_TRACK_DISABLED="1") as served, served.connected() as connection:
        bare += [answer(connection, request) for request in REQUESTS]
    assert ingest.posts() == []
    with serve() as served, served.connected() as connection:
        expected: list[str] = []
        for request, due in REQUESTS.items():
            answers.append(answer(connection, request))
            expected += due
            assert expected == [one for one in metrics(ingest.events()) if one != "task"], request
        ingest.wait_for(len(expected) + 1)
        served.stop()
    assert bare == answers
    assert sorted([*expected, "task", "down"]) == sorted(metrics(ingest.events()))
    due_posts = sum(bool(due) for due in REQUESTS.values())
    assert due_posts + 2 == len(ingest.posts())  # And one for the task, one for the end.


def test_many_clients(serve: Serve, ingest: Ingest) -> None:
    """50 requests on 10 kept connections at once: one POST each, no event lost or mixed up."""
    names = [[f"{client}-{number}" for number in range(5)] for client in range(10)]
    seen: list[str] = []

    def ask(mine: list[str]) -> None:
        with served.connected() as connection:
            for name in mine:
                assert name.encode() == answer(connection, f"GET /who?name={name}")[2]
                seen.append(name)

    with serve() as served, ThreadPoolExecutor(10) as clients:
        list(clients.map(ask, names))
        posts = Counter(
            tuple(sorted(event["attribution"]["name"] for event in post.json()["events"]))
            for post in ingest.posts()
        )
    assert Counter({(name, name): 1 for mine in names for name in mine}) == posts
    assert len(seen) == 50


def test_a_client_that_leaves(serve: Serve, ingest: Ingest) -> None:
    """In the middle of a stream: its events arrive."""
    with serve() as served:
        with served.connected() as connection:
            connection.request("GET", "/endless")
            connection.getresponse().read(20_000)
            assert ingest.posts() == []
        assert {"endless"} == set(metrics(ingest.wait_for(1, timeout=10)))


def test_a_session(serve: Serve, ingest: Ingest) -> None:
    """A websocket session's events are there when the client hears of its end."""
    ingest.fault(Fault(delay_s=0.03, times=None))
    with serve() as served, socket.create_connection(("127.0.0.1", served.port), 20) as connection:
        session = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        connection.sendall(session.send(events.Request(host="127.0.0.1", target="/session")))
        said: list[str] = []
        while not said or said[-1] != "closed":
            session.receive_data(connection.recv(65_536) or None)
            for event in session.events():
                if isinstance(event, events.AcceptConnection):
                    connection.sendall(session.send(events.TextMessage("hello")))
                elif isinstance(event, events.TextMessage):
                    said.append(event.data)
                    if said == ["hello"]:
                        connection.sendall(session.send(events.TextMessage("end")))
                elif isinstance(event, events.CloseConnection):
                    said.append("closed")
        assert metrics(ingest.events()) == ["session", "session"]
    assert said == ["hello", "end", "closed"]
    assert len(ingest.posts()) == 1

"""Web applications on Azure: what a response records is due before its end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from doow_serverless.local.azure.host import AzureHost, HttpResponse, http_request
from tests.metering import per_post
from tests.platforms.azure.apps import DELAY_S, both_ends, forget, settings, write_v2
from tests.runtimes.azure.environments import pythons

if TYPE_CHECKING:
    from pathlib import Path

    from doow_serverless.local import Ingest
    from doow_serverless.local.azure.host import Invocation


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
def test_web_applications(source: str, slow_ingest: Ingest, tmp_path: Path) -> None:
    """Responses are as without us, and one POST each, background tasks besides, came before."""
    answers = {}
    for kind in TRACKING:
        app = write_v2(tmp_path / kind, variant(source, kind))
        env = settings(slow_ingest.url, DOOW_TRACK_DISABLED="true" if kind == "bare" else "")
        with AzureHost(app, python=pythons()[-1], model="v2", env=env) as host:
            assert host.index_error is None
            for path, expected in REQUESTS[source].items():
                request = http_request("POST", f"http://localhost/api/{path}/2", body=b"x")
                is_last = path == "broken"
                reply = host.invoke("http_app_func", {"req": request}, kill=is_last)
                answers[kind, path] = content(reply)
                if kind == "bare":
                    assert per_post(slow_ingest) == []
                    continue
                # Where the function is tracked, that is outermost, and delivers when all is done.
                all_at_once = [[metric for post in expected for metric in post]]
                assert per_post(slow_ingest) == (expected if kind == "middleware" else all_at_once)
                assert slow_ingest.posts()[-1].received_at + DELAY_S <= reply.responded_at
                forget(slow_ingest)
    for kind in TRACKING:
        assert {path: answers[kind, path] for path in REQUESTS[source]} == {
            path: answers["bare", path] for path in REQUESTS[source]
        }


@both_ends
@pytest.mark.parametrize("source", [ASGI, WSGI], ids=["asgi", "wsgi"])
def test_many_requests(python: Path, source: str, slow_ingest: Ingest, tmp_path: Path) -> None:
    """At the same time, under every interpreter: each request has its own POST."""
    app = write_v2(tmp_path / "app", source)
    with AzureHost(app, python=python, model="v2", env=settings(slow_ingest.url)) as host:
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
            sizes = [event["measurements"][0]["quantity"] for event in slow_ingest.events()]
            assert n in sizes
    assert per_post(slow_ingest) == [["items", "sizes"]] * 20

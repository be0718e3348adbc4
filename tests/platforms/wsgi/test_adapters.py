"""The WSGI middleware under adapters to Lambda, to Azure and to ASGI."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import awsgi
import awsgi2
import azure.functions as func
import pytest
import serverless_wsgi
from a2wsgi import WSGIMiddleware
from apig_wsgi import make_lambda_handler

import doow_serverless as doow
from doow_serverless.wsgi import DoowMiddleware
from tests.lambda_context import LambdaContext
from tests.metering import accepted, configure, unmetered
from tests.network import Metronome, silent
from tests.network import Server as TcpServer
from tests.platforms.asgi.apps import Wire, http
from tests.platforms.wsgi.shapes import APPS, CLOSED, WRAPPED, site
from tests.platforms.wsgi.test_frameworks import flask_app
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.local import Ingest


def rest_event(method: str, path: str) -> dict[str, Any]:
    """Of API Gateway, payload 1.0."""
    return {
        "version": "1.0",
        "httpMethod": method,
        "path": path,
        "headers": {"Host": "localhost"},
        "requestContext": {"stage": "", "identity": {"sourceIp": "127.0.0.1"}},
        "queryStringParameters": {},
        "multiValueQueryStringParameters": {},
        "body": "",
        "isBase64Encoded": False,
    }


def http_event(method: str, path: str) -> dict[str, Any]:
    """Of API Gateway, payload 2.0, and of function URLs."""
    http = {"method": method, "sourceIp": "127.0.0.1", "protocol": "HTTP/1.1", "path": path}
    return {
        "version": "2.0",
        "rawPath": path,
        "rawQueryString": "",
        "headers": {"host": "localhost"},
        "requestContext": {"http": http, "stage": "$default"},
        "body": "",
        "isBase64Encoded": False,
    }


def apig(app: Any) -> Any:
    return make_lambda_handler(app)


def serverless(app: Any) -> Any:
    return lambda event, context: serverless_wsgi.handle_request(app, event, context)


def aws_wsgi(app: Any) -> Any:
    return lambda event, context: awsgi.response(app, event, context)


def aws_wsgi_2(app: Any) -> Any:
    return lambda event, context: awsgi2.response(app, event, context)


def azure(app: Any) -> Any:
    """Azure's, whose responses say all by their attributes."""

    def handler(event: Any, context: Any) -> Any:
        request = func.HttpRequest(
            event["httpMethod"], f"http://localhost{event['path']}", body=b""
        )
        adapter: Any = func.WsgiMiddleware
        response = adapter(app).handle(request)
        headers = list(response.headers.items())
        return response.status_code, headers, response.mimetype, response.get_body()

    return handler


def a2wsgi(app: Any) -> Any:
    """To ASGI, with a thread for the application; what it sends is all that a server hears."""

    def handler(event: Any, context: Any) -> Any:
        async def serve(scope: Any, receive: Any, send: Any) -> None:
            await WSGIMiddleware(app)(scope, receive, send)

        wire = Wire({"type": "http.request", "body": b"", "more_body": False})
        # It raises what the application gave as exc_info, which here is no failure.
        with suppress(LookupError):
            wire.serve(serve, http(event["httpMethod"], path=event["path"]))
        return wire.sent

    return handler


ADAPTERS = {
    "apig-wsgi": (apig, rest_event),
    "apig-wsgi 2.0": (apig, http_event),
    "serverless-wsgi": (serverless, rest_event),
    "serverless-wsgi 2.0": (serverless, http_event),
    "awsgi": (aws_wsgi, rest_event),
    "awsgi2": (aws_wsgi_2, rest_event),
    "awsgi2 2.0": (aws_wsgi_2, http_event),
    "azure": (azure, rest_event),
    "a2wsgi": (a2wsgi, rest_event),
}
"""How each makes a handler, and the events that it takes."""

CLOSING = ["apig-wsgi", "apig-wsgi 2.0", "a2wsgi"]
"""The others never call ``close()``, as PEP 3333 has it."""


def outcome(handler: Any, event: Any) -> Any:
    """What it returns, or raises."""
    try:
        return handler(event, LambdaContext())
    except Exception as problem:
        return repr(problem)


@pytest.mark.parametrize("way", WRAPPED)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_an_adapter_returns_once_all_is_delivered(
    adapter: str, way: str, doow_ingest: Ingest
) -> None:
    """Every shape of application, with the response of the bare one, in one POST or two."""
    configure(doow_ingest)
    adapt, event = ADAPTERS[adapter]
    handler, bare_handler = adapt(WRAPPED[way]), adapt(site)
    for name, (app, method, events) in APPS.items():
        request = event(method, f"/{app.__name__}")
        with unmetered():
            expected = outcome(bare_handler, request)
        doow_ingest.reset()
        assert (name, outcome(handler, request)) == (name, expected)
        if isinstance(expected, str):
            continue  # It takes no exc_info, or has no write(), so the application fails early.
        closed = name not in CLOSED or adapter in CLOSING
        assert (name, len(doow_ingest.events())) == (name, events if closed else events - 1)
        assert len(doow_ingest.posts()) <= 2


@pytest.mark.parametrize("adapter", [aws_wsgi, aws_wsgi_2, serverless, azure])
def test_a_redirect_keeps_its_status_and_location(adapter: Any, doow_ingest: Ingest) -> None:
    """Some adapters read both as soon as the application returns."""
    configure(doow_ingest)
    handler = adapter(DoowMiddleware(site))
    response = handler(rest_event("GET", "/redirect"), LambdaContext())
    if isinstance(response, dict):
        response = response["statusCode"], list(response["headers"].items())
    assert int(response[0]) == 302
    assert ("Location", "/as_list") in response[1]


@pytest.mark.parametrize("adapter", [apig, serverless, aws_wsgi, aws_wsgi_2])
def test_a_tracked_handler_and_the_middleware_inside_make_one_post(
    adapter: Any, doow_ingest: Ingest
) -> None:
    """The outermost delivers, after ``close()``."""
    configure(doow_ingest)
    app = flask_app()
    app.wsgi_app = DoowMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    handler = doow.tracked(adapter(app))
    for path in ("/plain", "/nothing", "/file"):
        doow_ingest.reset()
        answer = handler(rest_event("GET", path), LambdaContext())
        assert int(answer["statusCode"]) in (200, 204)
        assert accepted(doow_ingest) == ["before", "view", "after", "teardown"]
        assert len(doow_ingest.posts()) == 1


@pytest.mark.parametrize("remaining_s", [0.6, 0.2])
@pytest.mark.parametrize("adapter", [apig, serverless, aws_wsgi, aws_wsgi_2])
def test_an_adapter_passes_lambda_s_deadline_on(
    adapter: Any, remaining_s: float, new_tracker: Callable[..., doow.Tracker]
) -> None:
    """A silent server costs no more than the time that Lambda leaves, less the reserve."""
    with TcpServer(silent) as server:
        tracker = new_tracker(server.url, budget=5.0, on_error=lambda _: None)
        handler = adapter(DoowMiddleware(site, tracker=tracker))
        event = rest_event("GET", "/as_iterator")
        with Metronome() as noise:
            context = LambdaContext(remaining_s * 1000)
            began_at = time.perf_counter()
            assert handler(event, context)["body"] == "some text"
            elapsed_s = time.perf_counter() - began_at
    within(elapsed_s, remaining_s - 0.05 + 2 * noise.worst_s)
    assert elapsed_s > remaining_s - 0.3

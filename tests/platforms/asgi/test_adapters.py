"""Adapters that call ASGI applications: what they return is that of the bare application."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import TYPE_CHECKING, Any

import azure.functions as func
import mangum
import pytest
from a2wsgi import ASGIMiddleware

from tests.lambda_context import LambdaContext
from tests.metering import accepted, configure, unmetered
from tests.platforms.asgi.shapes import ALL, PATHS, SHAPES, WRAPPED, site
from tests.platforms.asgi.test_mangum import event
from tests.platforms.wsgi.apps import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless.local import Ingest


@pytest.fixture(autouse=True)
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The loop that Mangum finds."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    loop.close()
    asyncio.set_event_loop(None)


def on_lambda(app: Any, method: str, path: str) -> Any:
    """By Mangum, all of the response."""
    handler: Any = mangum.Mangum(app, lifespan="off")
    return handler(event(path, method), LambdaContext())


def on_azure(app: Any, method: str, path: str) -> Any:
    """By Azure's own middleware, whose responses say all by their attributes."""
    request = func.HttpRequest(method, f"http://localhost{path}", body=b"")
    adapter: Any = func.AsgiMiddleware
    response = asyncio.run(adapter(app).handle_async(request))
    headers = list(response.headers.items())
    return response.status_code, headers, response.mimetype, response.get_body()


def under_wsgi(app: Any, method: str, path: str) -> Any:
    """By a2wsgi, the bytes on the wire."""
    return Server(_under_wsgi(app)).get(method, PATH_INFO=path)


@cache
def _under_wsgi(app: Any) -> Any:
    return ASGIMiddleware(app)  # With a thread of its own, for good.


ADAPTERS = {"mangum": on_lambda, "azure": on_azure, "a2wsgi": under_wsgi}


def outcome(adapter: Callable[..., Any], app: Any, name: str) -> Any:
    """What it returns, or raises."""
    try:
        return adapter(app, ALL[name][0], PATHS[name])
    except Exception as problem:
        return repr(problem)


@pytest.mark.parametrize("way", WRAPPED)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_every_shape(adapter: str, way: str, doow_ingest: Ingest) -> None:
    """The whole response, and the events have arrived when it is returned."""
    configure(doow_ingest)
    adapt = ADAPTERS[adapter]
    # a2wsgi waits for ever for what an application does not send.
    for name in SHAPES if adapter == "a2wsgi" else ALL:
        with unmetered():
            expected = outcome(adapt, site, name)
        doow_ingest.reset()
        assert (name, outcome(adapt, WRAPPED[way], name)) == (name, expected)
        if name in SHAPES:
            assert accepted(doow_ingest)[:1] == [PATHS[name].strip("/")]

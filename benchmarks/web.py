"""What the middlewares cost a request that records nothing, beside the bare application."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Any

import doow_serverless as doow
from doow_serverless import asgi, wsgi
from doow_serverless.testing import MemoryTransport

from .warm import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, MutableMapping

    Message = MutableMapping[str, Any]

REQUESTS = 2_000
ROUNDS = 12
HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
BODY = {"type": "http.response.body", "body": b"hello"}


async def asgi_app(_scope: Message, _receive: object, send: Any) -> None:
    await send(HEAD)
    await send(BODY)


def wsgi_list(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def wsgi_generator(_environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    yield b"hello"


async def _receive() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(_message: Message) -> None:
    pass


def asgi_us(app: Any) -> float:
    """Microseconds a request, without a server."""
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"example.org")]}

    async def requests() -> float:
        began = time.perf_counter()
        for _ in range(REQUESTS):
            await app(scope, _receive, _send)
        return time.perf_counter() - began

    return asyncio.run(requests()) / REQUESTS * 1e6


def wsgi_us(app: Any) -> float:
    """Microseconds a request, without a server."""
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.version": (1, 0)}
    began = time.perf_counter()
    for _ in range(REQUESTS):
        body = app(environ, lambda *_: None)
        for _chunk in body:
            pass
        if hasattr(body, "close"):
            body.close()
    return (time.perf_counter() - began) / REQUESTS * 1e6


def rows() -> list[tuple[str, ...]]:
    """Microseconds of the bare application, of the wrapped one, and the difference."""
    doow.configure(KEY, transport=MemoryTransport(), license_id="lic_acme", warm_up=False)
    cases: list[tuple[str, Callable[[Any], float], Any, Any]] = [
        ("ASGI", asgi_us, asgi_app, asgi.DoowMiddleware(asgi_app)),
        ("WSGI, a list", wsgi_us, wsgi_list, wsgi.DoowMiddleware(wsgi_list)),
        ("WSGI, a generator", wsgi_us, wsgi_generator, wsgi.DoowMiddleware(wsgi_generator)),
    ]
    found: list[tuple[str, ...]] = []
    for name, measure, bare, wrapped in cases:
        pairs = [(measure(bare), measure(wrapped)) for _ in range(ROUNDS)][1:]
        without, within = (statistics.median(column) for column in zip(*pairs, strict=True))
        found.append((name, f"{without:.1f}", f"{within:.1f}", f"{within - without:+.1f}"))
    return found

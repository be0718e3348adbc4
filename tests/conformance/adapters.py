"""Every way to wrap a handler, behind one interface: work goes in, a client calls and is told.

The work of a handler is a function from the name of a request to the pieces of its answer, so that
one and the same is served by all of them. A new platform needs an entry in ``ADAPTERS``.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import azure.functions as func

import doow_serverless as doow
from doow_serverless import asgi, wsgi
from doow_serverless.azure import track_app
from tests.platforms.asgi.apps import body, http, start
from tests.platforms.vercel.handler_classes import Base, exchange, request, serving
from tests.platforms.wsgi.apps import environ
from tests.platforms.wsgi.shapes import TEXT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager


class Client(Protocol):
    """Who called, and hears of the answer as it goes out."""

    def got(self, piece: str) -> None:
        """A piece of the answer is there."""

    def over(self) -> None:
        """The answer is complete, or the exception is out."""


class Call(Protocol):
    """Calls what was wrapped, once, with the name of a request; raises what comes out of it."""

    def __call__(self, name: str, client: Client) -> None: ...


class Adapter(NamedTuple):
    """One way to wrap.

    Attributes:
        wrap: Wraps work, with the options of ``tracked``; what it returns lends a :class:`Call`.
        streams: Whether pieces reach the client while the handler is still at work.
    """

    wrap: Callable[..., AbstractContextManager[Call]]
    streams: bool = False


def answering(returned: Callable[[str], str]) -> Call:
    """A call of a function whose result is the whole answer."""

    def call(name: str, client: Client) -> None:
        try:
            client.got(returned(name))
        finally:
            client.over()

    return call


# ── functions, as Lambda calls them ────────────────────────────────────────────────────────────


@contextmanager
def function(work: Any, **options: Any) -> Iterator[Call]:
    @doow.tracked(**options)
    def handler(event: dict[str, Any], context: Any) -> str:
        return "".join(work(event["name"]))

    yield answering(lambda name: handler({"name": name}, None))


@contextmanager
def coroutine_function(work: Any, **options: Any) -> Iterator[Call]:
    @doow.tracked(**options)
    async def handler(event: dict[str, Any], context: Any) -> str:
        pieces = []
        for piece in work(event["name"]):
            pieces.append(piece)
            await asyncio.sleep(0)
        return "".join(pieces)

    yield answering(lambda name: asyncio.run(handler({"name": name}, None)))


@contextmanager
def returned_coroutine(work: Any, **options: Any) -> Iterator[Call]:
    async def later(name: str) -> str:
        await asyncio.sleep(0)
        return "".join(work(name))

    @doow.tracked(**options)
    def handler(event: dict[str, Any], context: Any) -> Any:
        return later(event["name"])

    yield answering(lambda name: asyncio.run(handler({"name": name}, None)))


@contextmanager
def method(work: Any, **options: Any) -> Iterator[Call]:
    class Service:
        @doow.tracked(**options)
        def handler(self, event: dict[str, Any], context: Any) -> str:
            return "".join(work(event["name"]))

    service = Service()
    yield answering(lambda name: service.handler({"name": name}, None))


@contextmanager
def callable_object(work: Any, **options: Any) -> Iterator[Call]:
    class Handler:
        def __call__(self, event: dict[str, Any], context: Any) -> str:
            return "".join(work(event["name"]))

    handler = doow.tracked(**options)(Handler())
    yield answering(lambda name: handler({"name": name}, None))


# ── web applications ───────────────────────────────────────────────────────────────────────────


def wsgi_app(work: Any) -> Any:
    """An application that streams the pieces."""

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [TEXT])
        return (piece.encode() for piece in work(environ["PATH_INFO"]))

    return app


def wsgi_call(app: Any) -> Call:
    """A call by a server as PEP 3333 has it."""

    def call(name: str, client: Client) -> None:
        result: Any = None
        try:
            result = app({**environ(), "PATH_INFO": name}, lambda *_: None)
            for piece in result:
                client.got(piece.decode())
        finally:
            client.over()
            if hasattr(result, "close"):
                result.close()

    return call


@contextmanager
def wsgi_middleware(work: Any, **options: Any) -> Iterator[Call]:
    yield wsgi_call(wsgi.DoowMiddleware(wsgi_app(work), **options))


@contextmanager
def tracked_wsgi_app(work: Any, **options: Any) -> Iterator[Call]:
    yield wsgi_call(doow.tracked(**options)(wsgi_app(work)))


def asgi_app(work: Any) -> Any:
    """An application that streams the pieces."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start(200))
        for piece in work(scope["path"]):
            await send(body(piece.encode(), more_body=True))
        await send(body())

    return app


def asgi_call(app: Any) -> Call:
    """A call by a server, on a loop of its own."""

    async def serve(name: str, client: Client) -> None:
        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                if message["body"]:
                    client.got(message["body"].decode())
                if not message.get("more_body"):
                    client.over()
            await asyncio.sleep(0)

        try:
            await app(http(path=name), asyncio.Event().wait, send)
        except BaseException:
            client.over()
            raise

    return lambda name, client: asyncio.run(serve(name, client))


@contextmanager
def asgi_middleware(work: Any, **options: Any) -> Iterator[Call]:
    yield asgi_call(asgi.DoowMiddleware(asgi_app(work), **options))


@contextmanager
def tracked_asgi_app(work: Any, **options: Any) -> Iterator[Call]:
    yield asgi_call(doow.tracked(**options)(asgi_app(work)))


class WatchedFile:
    """The file of a socket, of which the client is told what goes in, but for the head."""

    closed = False

    def __init__(self, handler: ByPath, file: Any) -> None:
        self._handler, self._file = handler, file

    def write(self, data: bytes) -> int:
        if not data.startswith(b"HTTP/"):
            self._handler.clients[self._handler.path].got(bytes(data).decode())
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class ByPath(Base):
    """A handler class that works for the client whose path it is, and keeps what was raised."""

    work: Any
    clients: dict[str, Client]
    problems: dict[str, BaseException]

    def setup(self) -> None:
        super().setup()
        self.wfile: Any = WatchedFile(self, self.wfile)

    def handle(self) -> None:
        try:
            super().handle()
        except BaseException as problem:  # The server would print it, or its thread end with it.
            self.problems[self.path] = problem

    def do_GET(self) -> None:  # noqa: N802  # its name is the contract
        self.head(200, Connection="close")
        for piece in self.work(self.path):
            self.wfile.write(piece.encode())

    def finish(self) -> None:
        self.clients[self.path].over()
        super().finish()


@contextmanager
def vercel_handler_class(work: Any, **options: Any) -> Iterator[Call]:
    """On a real server; what the client gets is noted where it goes into the socket."""
    clients: dict[str, Client] = {}
    problems: dict[str, BaseException] = {}
    own = {"work": staticmethod(work), "clients": clients, "problems": problems}

    def call(name: str, client: Client) -> None:
        clients[name] = client
        exchange(server, request(path=name))
        if name in problems:
            raise problems.pop(name)

    with serving(doow.tracked(**options)(type("Handler", (ByPath,), own))) as server:
        yield call


# ── Azure ──────────────────────────────────────────────────────────────────────────────────────


def azure_call(app: func.FunctionApp) -> Callable[[str], Any]:
    """The call of an app's one function by the worker: by the names of its bindings."""
    (function,) = app.get_functions()
    user_function = function.get_user_function()
    assert user_function is not None
    return lambda name: user_function(req=func.HttpRequest("GET", name, body=b""))


@contextmanager
def azure_function(work: Any, **options: Any) -> Iterator[Call]:
    app = func.FunctionApp()

    @app.route(route="work")
    @doow.tracked(**options)
    def handler(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse("".join(work(req.url)))

    call = azure_call(app)
    yield answering(lambda name: call(name).get_body().decode())


@contextmanager
def azure_coroutine_function(work: Any, **options: Any) -> Iterator[Call]:
    app = func.FunctionApp()

    @app.route(route="work")
    @doow.tracked(**options)
    async def handler(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse("".join(work(req.url)))

    call = azure_call(app)
    yield answering(lambda name: asyncio.run(call(name)).get_body().decode())


@contextmanager
def azure_tracked_app(work: Any, **options: Any) -> Iterator[Call]:
    app = func.FunctionApp()

    @app.route(route="work")
    def handler(req: func.HttpRequest) -> func.HttpResponse:
        return func.HttpResponse("".join(work(req.url)))

    track_app(app, **options)
    call = azure_call(app)
    yield answering(lambda name: call(name).get_body().decode())


ADAPTERS = {
    "function": Adapter(function),
    "coroutine function": Adapter(coroutine_function),
    "function that returns a coroutine": Adapter(returned_coroutine),
    "method": Adapter(method),
    "callable object": Adapter(callable_object),
    "WSGI middleware": Adapter(wsgi_middleware, streams=True),
    "tracked WSGI application": Adapter(tracked_wsgi_app, streams=True),
    "ASGI middleware": Adapter(asgi_middleware, streams=True),
    "tracked ASGI application": Adapter(tracked_asgi_app, streams=True),
    "Vercel handler class": Adapter(vercel_handler_class, streams=True),
    "Azure function": Adapter(azure_function),
    "Azure coroutine function": Adapter(azure_coroutine_function),
    "Azure app": Adapter(azure_tracked_app),
}

"""Frameworks that look at what they are given: at its signature, its methods, or its arguments."""

from __future__ import annotations

import asyncio
import functools
import inspect
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock, MagicMock

import pytest

import doow_serverless as doow
from doow_serverless._handlers.wrap import is_asgi_call, is_wsgi_call
from tests.lambda_context import LambdaContext
from tests.metering import metrics

if TYPE_CHECKING:
    from doow_serverless.testing import MemoryTransport


def get(app: Any, path: str) -> str:
    """What a WSGI application answers."""
    from werkzeug.test import Client

    with Client(app).get(path) as response:
        return response.get_data(as_text=True)


# ── signatures ─────────────────────────────────────────────────────────────────────────────────


def test_pyramid_sees_how_many_arguments_a_view_takes(doow_events: MemoryTransport) -> None:
    """``view(request)``, ``view(context, request)``, a method, and an object."""
    config = pytest.importorskip("pyramid.config").Configurator()
    response = pytest.importorskip("pyramid.response").Response

    def answer(request: Any) -> Any:
        doow.track("views")
        return response(request.path)

    class Views:
        def method(self, request: Any) -> Any:
            return answer(request)

        def __call__(self, request: Any) -> Any:
            return answer(request)

    views: dict[str, Any] = {
        "one": doow.tracked(lambda request: answer(request)),
        "two": doow.tracked(lambda context, request: answer(request)),
        "method": doow.tracked(Views().method),
        "object": doow.tracked(Views()),
        "transaction": doow.tracked(doow.transaction()(lambda request: answer(request))),
    }
    for name, view in views.items():
        config.add_route(name, f"/{name}")
        config.add_view(view, route_name=name)
    app = config.make_wsgi_app()
    assert [get(app, f"/{name}") for name in views] == [f"/{name}" for name in views]
    assert metrics(doow_events.events) == ["views"] * 5


def test_bottle_makes_routes_of_parameters(doow_events: MemoryTransport) -> None:
    """``@route()`` reads the path off the signature, also of what other decorators wrap."""
    app = pytest.importorskip("bottle").Bottle()

    @doow.tracked
    def greet(name: str, greeting: str = "hello") -> str:
        doow.track("views")
        return f"{greeting} {name}"

    app.route()(greet)
    assert get(app, "/greet/you") == "hello you"
    assert get(app, "/greet/you/bye") == "bye you"
    assert metrics(doow_events.events) == ["views"] * 2
    (rule, _) = {route.rule: route for route in app.routes}.items()
    assert rule[1].get_undecorated_callback() is inspect.unwrap(greet)


def test_fastapi_reads_the_parameters_of_a_path(doow_events: MemoryTransport) -> None:
    """Path, query and dependency, of a def and an async def."""
    fastapi = pytest.importorskip("fastapi")
    client = pytest.importorskip("starlette.testclient").TestClient
    app = fastapi.FastAPI()

    @doow.tracked
    def dependency(size: int = 2) -> int:
        return size

    @doow.tracked
    def plain(name: str, size: int = fastapi.Depends(dependency)) -> str:
        doow.track("views")
        return name * size

    @doow.tracked
    async def native(name: str, size: int = fastapi.Depends(dependency)) -> str:
        doow.track("views")
        return name * size

    app.get("/plain/{name}")(plain)
    app.get("/native/{name}")(native)
    with client(app) as http:
        assert http.get("/plain/ab").json() == "abab"
        assert http.get("/native/ab?size=3").json() == "ababab"
    assert metrics(doow_events.events) == ["views"] * 2


def test_powertools_parses_events(doow_events: MemoryTransport) -> None:
    """``event_parser`` takes the model from the type hints."""
    pytest.importorskip("aws_lambda_powertools")
    pytest.importorskip("pydantic")
    from aws_lambda_powertools.utilities.parser import BaseModel, event_parser

    class Order(BaseModel):
        amount: int

    def handler(event: Order, context: Any) -> int:
        doow.track("orders")
        return event.amount

    handler.__annotations__["event"] = Order
    context: Any = LambdaContext()
    parsed = event_parser(doow.tracked(handler))
    assert parsed({"amount": "5"}, context) == 5
    assert metrics(doow_events.events) == ["orders"]


def test_click_passes_options_by_name(doow_events: MemoryTransport) -> None:
    """And keeps those that it has hung on the function."""
    click = pytest.importorskip("click")
    runner = pytest.importorskip("click.testing").CliRunner()

    @doow.tracked
    def shown(size: int) -> None:
        doow.track("commands")
        click.echo(size)

    command = click.command()(click.option("--size", type=int)(shown))
    assert runner.invoke(command, ["--size", "5"]).output == "5\n"
    assert metrics(doow_events.events) == ["commands"]


# ── annotations, which are text here ───────────────────────────────────────────────────────────


class Item:
    """What pydantic makes of a number."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(lambda _: cls(), handler(int))

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: Any) -> Any:
        return {"type": "integer"}


def item_def(item: Item, size: int = 1) -> str:
    doow.track("calls")
    return f"{type(item).__name__} {size}"


async def item_async(item: Item, size: int = 1) -> str:
    return item_def(item, size)


class Items:
    def method(self, item: Item, size: int = 1) -> str:
        return item_def(item, size)

    def __call__(self, item: Item, size: int = 1) -> str:
        return item_def(item, size)


ITEM_KINDS: dict[str, Any] = {
    "def": item_def,
    "async def": item_async,
    "method": Items().method,
    "partial": functools.partial(item_def, size=1),
    "object": Items(),
}


def answer_of(result: Any) -> Any:
    return asyncio.run(result) if inspect.iscoroutine(result) else result


@pytest.mark.parametrize("kind", [kind for kind in ITEM_KINDS if kind != "object"])
def test_pydantic_validates_calls(kind: str, doow_events: MemoryTransport) -> None:
    """By the annotations of the function that is tracked."""
    pydantic = pytest.importorskip("pydantic")
    validated = pydantic.validate_call(doow.tracked(ITEM_KINDS[kind]))
    assert answer_of(validated("5")) == "Item 1"
    with pytest.raises(pydantic.ValidationError):
        answer_of(validated("five"))
    assert metrics(doow_events.events) == ["calls"]


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_an_mcp_server_takes_tools(kind: str, doow_events: MemoryTransport) -> None:
    """It makes a model of the arguments when the tool is added."""
    pytest.importorskip("mcp")
    try:
        server: Any = pytest.importorskip("mcp.server.mcpserver").MCPServer("server")
    except pytest.skip.Exception:  # Before version 2.
        server = pytest.importorskip("mcp.server.fastmcp").FastMCP("server")
    server.tool(name="tool")(doow.tracked(ITEM_KINDS[kind]))
    (tool,) = asyncio.run(server.list_tools())
    schema = getattr(tool, "input_schema", None) or tool.inputSchema
    assert list(schema["properties"])[:1] == ["item"]
    assert "text='Item 1'" in str(asyncio.run(server.call_tool("tool", {"item": 5})))
    assert metrics(doow_events.events) == ["calls"]


@pytest.mark.parametrize("kind", ["def", "method"])
def test_powertools_validates_requests(kind: str, doow_events: MemoryTransport) -> None:
    """Its resolver evaluates annotations that are text in the module of what it is given."""
    event_handler = pytest.importorskip("aws_lambda_powertools.event_handler")
    pytest.importorskip("pydantic")
    app: Any = event_handler.APIGatewayHttpResolver(enable_validation=True)
    app.get("/items/<item>")(doow.tracked(ITEM_KINDS[kind]))
    event = {
        "rawPath": "/items/5",
        "queryStringParameters": {"size": "3"},
        "requestContext": {"http": {"method": "GET", "path": "/items/5"}, "stage": "$default"},
    }
    answer = app.resolve(event, LambdaContext())
    assert (answer["statusCode"], answer["body"]) == (200, "Item 3")
    assert metrics(doow_events.events) == ["calls"]


@pytest.mark.parametrize("kind", ITEM_KINDS)
def test_fastapi_validates_requests(kind: str, doow_events: MemoryTransport) -> None:
    """The same."""
    fastapi = pytest.importorskip("fastapi")
    client = pytest.importorskip("starlette.testclient").TestClient
    app = fastapi.FastAPI()
    app.get("/items/{item}")(doow.tracked(ITEM_KINDS[kind]))
    with client(app) as http:
        assert http.get("/items/5").json() == "Item 1"
        assert http.get("/items/five").status_code == 422
    assert metrics(doow_events.events) == ["calls"]


def test_typer_reads_the_types_of_options(doow_events: MemoryTransport) -> None:
    """And converts what it is given."""
    typer = pytest.importorskip("typer")
    runner = pytest.importorskip("typer.testing").CliRunner()
    app = typer.Typer()

    @doow.tracked
    def shown(size: int, loud: bool = False) -> None:
        doow.track("commands")
        typer.echo(f"{size + 1} {loud}")

    app.command()(shown)
    assert runner.invoke(app, ["5", "--loud"]).output == "6 True\n"
    assert metrics(doow_events.events) == ["commands"]


def test_celery_passes_arguments(doow_events: MemoryTransport) -> None:
    """As those of any task."""
    celery = pytest.importorskip("celery")
    app = celery.Celery("app", broker="memory://")
    app.conf.task_always_eager = True
    task = app.task(name="task")(doow.tracked(item_def))
    assert task.delay(5, size=3).get() == "int 3"
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        task.delay(size=3).get()
    assert metrics(doow_events.events) == ["calls"]


# ── whole applications ─────────────────────────────────────────────────────────────────────────


def test_a_flask_application_stays_one(doow_events: MemoryTransport) -> None:
    """Routes are added after it was tracked, and its calls are tracked."""
    flask = pytest.importorskip("flask")
    app: Any = doow.tracked(flask.Flask("app"))

    def added() -> str:
        doow.track("views")
        return "added"

    app.route("/added")(added)
    app.add_url_rule("/by-hand", view_func=added)
    app.config["TESTING"] = True
    assert isinstance(app, flask.Flask)
    assert (get(app, "/added"), get(app, "/by-hand")) == ("added", "added")
    assert metrics(doow_events.events) == ["views"] * 2
    assert app.test_client().get("/added").data == b"added"


def test_a_fastapi_application_stays_one(doow_events: MemoryTransport) -> None:
    """The same, over ASGI: with the scopes of Starlette's test client, which are not whole."""
    fastapi = pytest.importorskip("fastapi")
    client = pytest.importorskip("starlette.testclient").TestClient
    app: Any = doow.tracked(fastapi.FastAPI())

    async def added() -> str:
        doow.track("views")
        return "added"

    async def session(websocket: Any) -> None:
        await websocket.accept()
        doow.track("sessions")
        await websocket.close()

    session.__annotations__["websocket"] = fastapi.WebSocket
    app.get("/added")(added)
    app.websocket("/session")(session)
    assert isinstance(app, fastapi.FastAPI)
    with client(app) as http:
        assert http.get("/added").json() == "added"
        assert metrics(doow_events.events) == ["views"]
        with http.websocket_connect("/session"):
            pass
    assert metrics(doow_events.events) == ["views", "sessions"]
    assert "/added" in [route.path for route in app.routes]


def test_a_powertools_resolver_stays_one(doow_events: MemoryTransport) -> None:
    """It is called as a handler, and takes routes."""
    event_handler = pytest.importorskip("aws_lambda_powertools.event_handler")
    app: Any = doow.tracked(event_handler.APIGatewayHttpResolver())

    def added() -> dict[str, str]:
        doow.track("views")
        return {"said": "added"}

    app.get("/added")(added)
    event = {
        "rawPath": "/added",
        "requestContext": {"http": {"method": "GET", "path": "/added"}, "stage": "$default"},
    }
    assert app(event, LambdaContext())["statusCode"] == 200
    assert metrics(doow_events.events) == ["views"]


# ── what is called by whom ─────────────────────────────────────────────────────────────────────


async def receive() -> Any: ...


def receive_later() -> Any:
    return receive()


HTTP = {"type": "http", "path": "/", "headers": []}
WHOLE = {**HTTP, "asgi": {"version": "3.0"}}
LIFESPAN = {"type": "lifespan", "asgi": {"version": "3.0"}}


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((WHOLE, receive, print), True),
        (({}, WHOLE, receive, print), True),
        ((WHOLE, receive_later, print), True),
        ((HTTP, receive, print), True),
        (({"type": "lifespan"}, receive, print), True),
        ((LIFESPAN, receive_later, print), True),
        (({"type": "http"}, MagicMock(), print), False),
        (({"type": "http"}, AsyncMock(), print), False),
        ((HTTP, MagicMock(), print), False),
        (({"type": "websocket"}, receive, print), False),
        (({"type": "lifespan"}, MagicMock(), print), False),
        (({"type": "lifespan", "asgi": "3.0"}, MagicMock(), print), False),
        (({**WHOLE, "type": ["http"]}, receive, print), False),
        (({**WHOLE, "type": "lambda"}, receive, print), False),
        ((WHOLE, None, print), False),
        ((WHOLE, receive), False),
    ],
)
def test_what_an_asgi_call_is(args: tuple[Any, ...], expected: bool) -> None:
    """A scope with what ASGI demands of one, and two callables; a type alone is none."""
    assert is_asgi_call(args) is expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (({"wsgi.version": (1, 0), "REQUEST_METHOD": "GET"}, print), True),
        (({}, {"wsgi.version": (1, 0), "REQUEST_METHOD": "GET"}, print), True),
        (({"wsgi.version": (1, 0)}, MagicMock()), False),
        (({"wsgi.version": (1, 0), "REQUEST_METHOD": "GET"}, None), False),
        (({"type": "http"}, MagicMock()), False),
    ],
)
def test_what_a_wsgi_call_is(args: tuple[Any, ...], expected: bool) -> None:
    """An environ with what PEP 3333 demands of one, and a callable."""
    assert is_wsgi_call(args) is expected


@pytest.mark.parametrize("event", [{"type": "http"}, {"type": "lifespan"}, HTTP])
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_event_with_a_type_is_an_event(
    event: dict[str, Any], kind: str, doow_events: MemoryTransport
) -> None:
    """The handler runs, and its result goes back."""

    def plain(event: Any, context: Any, callback: Any) -> Any:
        doow.track("calls")
        return event

    async def native(event: Any, context: Any, callback: Any) -> Any:
        return plain(event, context, callback)

    if kind == "def":
        result = doow.tracked(plain)(event, MagicMock(), print)
    else:
        result = asyncio.run(doow.tracked(native)(event, MagicMock(), print))
    assert result is event
    assert metrics(doow_events.events) == ["calls"]

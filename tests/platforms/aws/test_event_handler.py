"""Powertools' Event Handler, with our middleware in it."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._engine import Engine
from doow_serverless.errors import ConfigurationError
from doow_serverless.powertools import (
    DoowMiddleware,
)
from doow_serverless.testing import MemoryTransport
from tests.metering import metrics
from tests.platforms.aws.powertools_events import (
    agent_event,
    http_event,
    lattice_event,
    new_context,
    rest_event,
)

pytest.importorskip("aws_lambda_powertools")

from aws_lambda_powertools.event_handler import (
    ALBResolver,
    APIGatewayHttpResolver,
    ApiGatewayResolver,
    APIGatewayRestResolver,
    BedrockAgentResolver,
    LambdaFunctionUrlResolver,
    Response,
    VPCLatticeV2Resolver,
)
from aws_lambda_powertools.event_handler.api_gateway import Router
from aws_lambda_powertools.event_handler.exceptions import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Tracker


def new_app(*middlewares: DoowMiddleware) -> APIGatewayRestResolver:
    app = APIGatewayRestResolver()
    app.use(middlewares=[*middlewares])
    return app


@pytest.mark.parametrize(
    ("resolver", "event"),
    [
        (APIGatewayRestResolver, rest_event()),
        (APIGatewayHttpResolver, http_event()),
        (LambdaFunctionUrlResolver, http_event()),
        (ALBResolver, rest_event()),
        (VPCLatticeV2Resolver, lattice_event()),
        (BedrockAgentResolver, agent_event()),
    ],
)
def test_a_route_is_delivered_before_the_resolver_returns(
    resolver: Callable[[], ApiGatewayResolver],
    event: dict[str, Any],
    strict_events: MemoryTransport,
) -> None:
    """With every resolver that takes middleware: one POST, and the response as without us."""

    def resolve(*middlewares: DoowMiddleware) -> Any:
        app = resolver()
        app.use(middlewares=list(middlewares))

        @app.get("/jobs", description="Lists the jobs")
        def jobs() -> dict[str, str]:
            doow.track("requests")
            return {"jobs": "none"}

        return app.resolve(event, new_context())

    tracked = resolve(DoowMiddleware())
    assert (metrics(strict_events.events), len(strict_events.batches)) == (["requests"], 1)
    assert tracked == resolve()


def test_the_decorator_around_the_resolver_delivers_alone(strict_events: MemoryTransport) -> None:
    """Middleware inside @tracked, and in itself, shares its buffer: one POST, options overlaid."""
    app = new_app(DoowMiddleware(attribution={"team": "api"}), DoowMiddleware())

    @app.get("/jobs", middlewares=[DoowMiddleware(license_id="lic_2")])
    def jobs() -> str:
        doow.track("requests")
        return "none"

    @doow.tracked(attribution={"stage": "prod"})
    def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
        doow.track("before")
        response = app.resolve(event, context)
        assert strict_events.batches == []
        doow.track("after")
        return response

    assert handler(rest_event(), new_context())["statusCode"] == 200
    assert (metrics(strict_events.events), len(strict_events.batches)) == (
        ["before", "requests", "after"],
        1,
    )
    _, request, _ = strict_events.events
    assert request["license_id"] == "lic_2"
    assert request["attribution"] == {"stage": "prod", "team": "api"}


def test_a_router_of_its_own_has_its_own_middleware(strict_events: MemoryTransport) -> None:
    """Middleware of a split router runs for its routes; it is the application's once included."""
    router = Router()  # type: ignore[no-untyped-call]
    router.use(middlewares=[DoowMiddleware(metric="requests")])

    @router.get("/jobs")
    def jobs() -> str:
        doow.track("jobs")
        return "none"

    app = new_app()
    app.include_router(router, prefix="/v1")
    assert app.resolve(rest_event("/v1/jobs"), new_context())["statusCode"] == 200
    assert (metrics(strict_events.events), len(strict_events.batches)) == (["requests", "jobs"], 1)


@pytest.mark.parametrize("has_prefix", [False, True], ids=["app", "router"])
def test_the_route_is_told_as_it_was_declared(
    has_prefix: bool, strict_events: MemoryTransport
) -> None:
    """Not the path, of which there are as many as there are customers; options' own win."""
    router = Router()  # type: ignore[no-untyped-call]
    router.get("/jobs/<job>")(lambda job: doow.track("reads"))
    router.post("/jobs/<job>")(lambda job: doow.track("writes", attribution={"method": "mine"}))
    app = new_app(DoowMiddleware(route_attribution=True, attribution={"team": "api"}))
    app.include_router(router, prefix="/v1" if has_prefix else None)
    prefix = "/v1" if has_prefix else ""
    for path, method in (("/jobs/1", "GET"), ("/jobs/2", "POST"), ("/jobs/3", "GET")):
        app.resolve(rest_event(prefix + path, method), new_context())
    route = {"team": "api", "route": f"{prefix}/jobs/<job>"}
    assert [(metrics([event]), event["attribution"]) for event in strict_events.events] == [
        (["reads"], {**route, "method": "GET"}),
        (["writes"], {**route, "method": "mine"}),
        (["reads"], {**route, "method": "GET"}),
    ]


def test_a_request_without_a_route_tells_none(strict_events: MemoryTransport) -> None:
    """What strangers ask for is no attribution."""
    app = new_app(DoowMiddleware(route_attribution=True, metric="requests"))
    assert app.resolve(rest_event("/admin.php"), new_context())["statusCode"] == 404
    assert [event.get("attribution") for event in strict_events.events] == [None]


def test_requests_do_not_mix(strict_events: MemoryTransport) -> None:
    """Each request of a warm function is delivered for itself, and none that recorded nothing."""
    app = new_app(DoowMiddleware())

    @app.get("/jobs/<count>")
    def jobs(count: str) -> str:
        for _ in range(int(count)):
            doow.track("requests")
        return count

    for count in ("2", "0", "1"):
        app.resolve(rest_event(f"/jobs/{count}"), new_context())
    assert [len(sent) for sent in strict_events.batches] == [2, 1]


@pytest.mark.parametrize(("on_exception", "expected"), [("flush", ["requests"]), ("discard", [])])
def test_an_exception_passes_before_it_is_mapped(
    on_exception: Any, expected: list[str], strict_events: MemoryTransport
) -> None:
    """The exception handler gets the object that was raised, and maps it; a route may discard."""
    app = new_app()
    raised, handled = ValueError("no such customer"), []

    @app.exception_handler(ValueError)  # type: ignore[untyped-decorator]
    def refuse(problem: ValueError) -> Response[str]:
        handled.append(problem)
        return Response(418, body=str(problem))

    @app.get("/jobs", middlewares=[DoowMiddleware(on_exception=on_exception)])
    def jobs() -> None:
        doow.track("requests")
        raise raised

    response = app.resolve(rest_event(), new_context())
    assert (response["statusCode"], response["body"]) == (418, "no such customer")
    assert handled == [raised]
    assert handled[0] is raised
    assert metrics(strict_events.events) == expected


def test_an_error_of_http_is_an_exception_too(strict_events: MemoryTransport) -> None:
    """One route discards what it recorded before its 400; the others keep theirs."""
    app = new_app(DoowMiddleware())

    def refuse(metric: str) -> None:
        doow.track(metric)
        raise BadRequestError("no")

    app.get("/a", middlewares=[DoowMiddleware(on_exception="discard")])(lambda: refuse("a"))
    app.get("/b")(lambda: refuse("b"))
    statuses = [app.resolve(rest_event(path), new_context())["statusCode"] for path in ("/a", "/b")]
    assert (statuses, metrics(strict_events.events)) == ([400, 400], ["b"])


def test_an_exception_without_a_handler_leaves_the_resolver(strict_events: MemoryTransport) -> None:
    """What no exception handler maps is raised as it was; its events are delivered."""
    app = new_app(DoowMiddleware())
    raised = KeyError("customer")

    @app.get("/jobs")
    def jobs() -> None:
        doow.track("requests")
        raise raised

    with pytest.raises(KeyError) as caught:
        app.resolve(rest_event(), new_context())
    assert caught.value is raised
    assert metrics(strict_events.events) == ["requests"]


def test_an_exception_handler_records_for_the_tracked_handler(
    strict_events: MemoryTransport,
) -> None:
    """It runs after the middleware: what it records leaves with the handler around it all."""
    app = new_app(DoowMiddleware(on_exception="discard"))

    @app.exception_handler(ValueError)  # type: ignore[untyped-decorator]
    def refuse(_: ValueError) -> Response[str]:
        doow.track("refusals")
        return Response(418)

    @app.get("/jobs")
    def jobs() -> None:
        doow.track("requests")
        raise ValueError

    @doow.tracked
    def handler(event: dict[str, Any], context: Any) -> Any:
        return app.resolve(event, context)

    assert handler(rest_event(), new_context())["statusCode"] == 418
    assert (metrics(strict_events.events), len(strict_events.batches)) == (["refusals"], 1)


def test_requests_without_a_route_count_as_requests(strict_events: MemoryTransport) -> None:
    """The application's middleware runs for a 404, too."""
    app = new_app(DoowMiddleware(metric="requests"))
    assert app.resolve(rest_event("/none"), new_context())["statusCode"] == 404
    assert metrics(strict_events.events) == ["requests"]


@pytest.mark.parametrize(("remaining_ms", "expected"), [(30_000, 0.5), (650, 0.4), (100, 0.0)])
def test_the_deadline_is_that_of_the_context(
    remaining_ms: int,
    expected: float,
    strict_events: MemoryTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The flush may take the budget, or what the Lambda context leaves less the reserve."""
    limits: list[float] = []
    flush = Engine.flush

    def noted(engine: Engine, buffer: Any, limit_s: float, **options: Any) -> doow.Outcome:
        limits.append(limit_s)
        return flush(engine, buffer, limit_s, **options)

    monkeypatch.setattr(Engine, "flush", noted)
    app = new_app(DoowMiddleware(budget=0.5))
    app.get("/jobs")(lambda: doow.track("requests"))
    app.resolve(rest_event(), new_context(remaining_ms))
    assert limits == [pytest.approx(expected, abs=0.05)]


def test_the_middleware_takes_a_tracker(new_tracker: Callable[..., Tracker]) -> None:
    """With ``tracker=`` the functions of the package mean that tracker inside of the route."""
    transport = MemoryTransport()
    app = new_app(DoowMiddleware(tracker=new_tracker(transport=transport)))
    app.get("/jobs")(lambda: doow.track("requests"))
    app.resolve(rest_event(), new_context())
    assert metrics(transport.events) == ["requests"]


def test_a_wrong_option_is_refused_at_once() -> None:
    """As for tracked(), when the middleware is made."""
    with pytest.raises(ConfigurationError, match="on_exception"):
        DoowMiddleware(on_exception="ignore")  # type: ignore[arg-type]  # on purpose


def test_debug_mode_shows_the_middleware(
    strict_events: MemoryTransport, capsys: pytest.CaptureFixture[str]
) -> None:
    """Powertools names each middleware by its ``__name__``."""
    app = APIGatewayRestResolver(debug=True)
    app.use(middlewares=[DoowMiddleware()])
    app.get("/jobs")(lambda: doow.track("requests"))
    app.resolve(rest_event(), new_context())
    assert "DoowMiddleware" in capsys.readouterr().out
    assert metrics(strict_events.events) == ["requests"]


def test_a_route_that_cannot_be_found_is_told_and_costs_nothing(
    strict_events: MemoryTransport, contained_faults: list[str]
) -> None:
    """Another version of Powertools may keep it elsewhere: the request is served, and metered."""
    middleware = DoowMiddleware(route_attribution=True, metric="requests")
    served: Any = object()
    assert middleware(served, lambda _: served) is served
    assert metrics(strict_events.events) == ["requests"]
    assert len(contained_faults) == 1
    contained_faults.clear()


async_resolver = pytest.mark.skipif(
    not hasattr(APIGatewayRestResolver, "resolve_async"), reason="Powertools is older"
)


@async_resolver
def test_async_routes_record_into_their_own_requests(strict_events: MemoryTransport) -> None:
    """Under ``resolve_async`` each request is delivered before it is answered; they do not mix."""

    async def request(number: int) -> None:
        app = new_app(DoowMiddleware())

        @app.get("/jobs")
        async def jobs() -> str:
            doow.track("requests", number)
            await asyncio.sleep(0.01)
            doow.track("requests", number)
            return "none"

        assert (await app.resolve_async(rest_event(), new_context()))["statusCode"] == 200

    async def requests() -> None:
        await asyncio.gather(*map(request, range(1, 5)))

    asyncio.run(requests())
    quantities = [
        {event["measurements"][0]["quantity"] for event in json.loads(sent.json())["events"]}
        for sent in strict_events.batches
    ]
    assert sorted(map(sorted, quantities)) == [[1], [2], [3], [4]]
    assert [len(sent) for sent in strict_events.batches] == [2, 2, 2, 2]


@async_resolver
def test_an_exception_of_an_async_route_is_the_one_raised(strict_events: MemoryTransport) -> None:
    """It reaches the exception handler as the same object; what was recorded is discarded."""
    app = new_app(DoowMiddleware(on_exception="discard"))
    raised, handled = ValueError("no such customer"), []

    @app.exception_handler(ValueError)  # type: ignore[untyped-decorator]
    def refuse(problem: ValueError) -> Response[str]:
        handled.append(problem)
        return Response(418)

    @app.get("/jobs")
    async def jobs() -> None:
        doow.track("requests")
        raise raised

    @doow.tracked
    def handler(event: dict[str, Any], context: Any) -> Any:
        doow.track("invocations")
        return asyncio.run(app.resolve_async(event, context))

    assert handler(rest_event(), new_context())["statusCode"] == 418
    assert [problem is raised for problem in handled] == [True]
    assert (metrics(strict_events.events), len(strict_events.batches)) == (["invocations"], 1)

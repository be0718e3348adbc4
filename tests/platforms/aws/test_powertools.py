"""Powertools itself, with our middleware, record handlers and metrics in it."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._engine import Engine
from doow_serverless.errors import ConfigurationError, ErrorKind
from doow_serverless.powertools import (
    DoowMiddleware,
    cloudwatch_metrics,
    record_identity,
    record_transaction,
)
from doow_serverless.testing import MemoryTransport

pytest.importorskip("aws_lambda_powertools")

from aws_lambda_powertools import Metrics
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
from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor,
    BatchProcessor,
    EventType,
    SqsFifoPartialProcessor,
    async_process_partial_response,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless import Tracker

STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/jobs/stream/2026-01-01T00:00:00.000"

# ── events, as Lambda passes them ───────────────────────────────────────────────────────────────


class _Context:
    function_name = "meter"
    memory_limit_in_mb = "128"
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:meter"

    def __init__(self, remaining_ms: int, request_id: str) -> None:
        self.remaining_ms = remaining_ms
        self.aws_request_id = request_id

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining_ms


def new_context(remaining_ms: int = 30_000, request_id: str = "req-1") -> Any:
    """What Lambda passes as context."""
    return _Context(remaining_ms, request_id)


def rest_event(path: str = "/jobs", method: str = "GET") -> dict[str, Any]:
    return {
        "path": path,
        "httpMethod": method,
        "headers": {},
        "multiValueHeaders": {},
        "requestContext": {"path": path, "httpMethod": method},
        "body": None,
    }


def http_event(path: str = "/jobs", method: str = "GET") -> dict[str, Any]:
    return {
        "version": "2.0",
        "rawPath": path,
        "headers": {},
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default"},
    }


def lattice_event(path: str = "/jobs", method: str = "GET") -> dict[str, Any]:
    return {"version": "2.0", "path": path, "method": method, "headers": {}, "requestContext": {}}


def agent_event(path: str = "/jobs", method: str = "GET") -> dict[str, Any]:
    return {
        "messageVersion": "1.0",
        "actionGroup": "jobs",
        "apiPath": path,
        "httpMethod": method,
        "agent": {},
    }


def sqs_record(message_id: str, body: str = "good", group: str | None = None) -> dict[str, Any]:
    times = {"SentTimestamp": "1", "ApproximateFirstReceiveTimestamp": "1"}
    return {
        "messageId": message_id,
        "receiptHandle": "handle",
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SenderId": "sender",
            **times,
            **({} if group is None else {"MessageGroupId": group}),
        },
        "messageAttributes": {},
        "md5OfBody": "0" * 32,
        "eventSource": "aws:sqs",
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:jobs",
        "awsRegion": "eu-west-1",
    }


def kinesis_record(number: str, body: str = "good", stream: str = STREAM) -> dict[str, Any]:
    return {
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000000:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/meter",
        "awsRegion": "eu-west-1",
        "eventSourceARN": stream,
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "1",
            "sequenceNumber": number,
            "data": base64.b64encode(body.encode()).decode(),
            "approximateArrivalTimestamp": 1.0,
        },
    }


def dynamodb_record(event_id: str, body: str = "good") -> dict[str, Any]:
    return {
        "eventID": event_id,
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "eventSourceARN": TABLE,
        "dynamodb": {
            "Keys": {"id": {"S": event_id}},
            "NewImage": {"body": {"S": body}},
            "SequenceNumber": event_id,
            "SizeBytes": 1,
            "StreamViewType": "NEW_IMAGE",
        },
    }


def kafka_record(offset: int, body: str = "good", topic: str = "clicks") -> dict[str, Any]:
    return {
        "topic": topic,
        "partition": 0,
        "offset": offset,
        "timestamp": 1,
        "timestampType": "CREATE_TIME",
        "key": "",
        "value": base64.b64encode(body.encode()).decode(),
        "headers": [],
    }


def batch(*records: dict[str, Any]) -> dict[str, Any]:
    return {"Records": list(records)}


# ── what arrives ────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def doow_(key: str) -> MemoryTransport:
    """What the package's own tracker delivers."""
    transport = MemoryTransport()
    doow.configure(key, transport=transport, license_id="lic_1", warm_up=False, strict=True)
    return transport


def metrics_of(transport: MemoryTransport) -> list[str]:
    return [event["measurements"][0]["metric_name"] for event in transport.events]


def ids_of(transport: MemoryTransport) -> list[str]:
    return [event["event_id"] for event in transport.events]


def test_powertools_is_imported_by_those_who_use_it() -> None:
    """Neither the package nor the middleware and the record handlers import Powertools."""
    script = """if True:
        import sys, doow_serverless
        assert "doow_serverless.powertools" not in sys.modules
        from doow_serverless.powertools import DoowMiddleware, record_transaction
        DoowMiddleware(); record_transaction(lambda record: None)
        assert "aws_lambda_powertools" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


# ── Event Handler ───────────────────────────────────────────────────────────────────────────────


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
    resolver: Callable[[], ApiGatewayResolver], event: dict[str, Any], doow_: MemoryTransport
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
    assert (metrics_of(doow_), len(doow_.batches)) == (["requests"], 1)
    assert tracked == resolve()


def test_the_decorator_around_the_resolver_delivers_alone(doow_: MemoryTransport) -> None:
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
        assert doow_.batches == []
        doow.track("after")
        return response

    assert handler(rest_event(), new_context())["statusCode"] == 200
    assert (metrics_of(doow_), len(doow_.batches)) == (["before", "requests", "after"], 1)
    _, request, _ = doow_.events
    assert request["license_id"] == "lic_2"
    assert request["attribution"] == {"stage": "prod", "team": "api"}


def test_a_router_of_its_own_has_its_own_middleware(doow_: MemoryTransport) -> None:
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
    assert (metrics_of(doow_), len(doow_.batches)) == (["requests", "jobs"], 1)


def test_requests_do_not_mix(doow_: MemoryTransport) -> None:
    """Each request of a warm function is delivered for itself, and none that recorded nothing."""
    app = new_app(DoowMiddleware())

    @app.get("/jobs/<count>")
    def jobs(count: str) -> str:
        for _ in range(int(count)):
            doow.track("requests")
        return count

    for count in ("2", "0", "1"):
        app.resolve(rest_event(f"/jobs/{count}"), new_context())
    assert [len(sent) for sent in doow_.batches] == [2, 1]


@pytest.mark.parametrize(("on_exception", "expected"), [("flush", ["requests"]), ("discard", [])])
def test_an_exception_passes_before_it_is_mapped(
    on_exception: Any, expected: list[str], doow_: MemoryTransport
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
    assert metrics_of(doow_) == expected


def test_an_error_of_http_is_an_exception_too(doow_: MemoryTransport) -> None:
    """One route discards what it recorded before its 400; the others keep theirs."""
    app = new_app(DoowMiddleware())

    def refuse(metric: str) -> None:
        doow.track(metric)
        raise BadRequestError("no")

    app.get("/a", middlewares=[DoowMiddleware(on_exception="discard")])(lambda: refuse("a"))
    app.get("/b")(lambda: refuse("b"))
    statuses = [app.resolve(rest_event(path), new_context())["statusCode"] for path in ("/a", "/b")]
    assert (statuses, metrics_of(doow_)) == ([400, 400], ["b"])


def test_an_exception_without_a_handler_leaves_the_resolver(doow_: MemoryTransport) -> None:
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
    assert metrics_of(doow_) == ["requests"]


def test_an_exception_handler_records_for_the_tracked_handler(doow_: MemoryTransport) -> None:
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
    assert (metrics_of(doow_), len(doow_.batches)) == (["refusals"], 1)


def test_requests_without_a_route_count_as_requests(doow_: MemoryTransport) -> None:
    """The application's middleware runs for a 404, too."""
    app = new_app(DoowMiddleware(metric="requests"))
    assert app.resolve(rest_event("/none"), new_context())["statusCode"] == 404
    assert metrics_of(doow_) == ["requests"]


@pytest.mark.parametrize(("remaining_ms", "expected"), [(30_000, 0.5), (650, 0.4), (100, 0.0)])
def test_the_deadline_is_that_of_the_context(
    remaining_ms: int, expected: float, doow_: MemoryTransport, monkeypatch: pytest.MonkeyPatch
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
    assert limits == [pytest.approx(expected)]


def test_the_middleware_takes_a_tracker(new_tracker: Callable[..., Tracker]) -> None:
    """With ``tracker=`` the functions of the package mean that tracker inside of the route."""
    transport = MemoryTransport()
    app = new_app(DoowMiddleware(tracker=new_tracker(transport=transport)))
    app.get("/jobs")(lambda: doow.track("requests"))
    app.resolve(rest_event(), new_context())
    assert metrics_of(transport) == ["requests"]


def test_a_wrong_option_is_refused_at_once() -> None:
    """As for tracked(), when the middleware is made."""
    with pytest.raises(ConfigurationError, match="on_exception"):
        DoowMiddleware(on_exception="ignore")  # type: ignore[arg-type]  # on purpose


def test_debug_mode_shows_the_middleware(
    doow_: MemoryTransport, capsys: pytest.CaptureFixture[str]
) -> None:
    """Powertools names each middleware by its ``__name__``."""
    app = APIGatewayRestResolver(debug=True)
    app.use(middlewares=[DoowMiddleware()])
    app.get("/jobs")(lambda: doow.track("requests"))
    app.resolve(rest_event(), new_context())
    assert "DoowMiddleware" in capsys.readouterr().out
    assert metrics_of(doow_) == ["requests"]


async_resolver = pytest.mark.skipif(
    not hasattr(APIGatewayRestResolver, "resolve_async"), reason="Powertools is older"
)


@async_resolver
def test_async_routes_record_into_their_own_requests(doow_: MemoryTransport) -> None:
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
        for sent in doow_.batches
    ]
    assert sorted(map(sorted, quantities)) == [[1], [2], [3], [4]]
    assert [len(sent) for sent in doow_.batches] == [2, 2, 2, 2]


@async_resolver
def test_an_exception_of_an_async_route_is_the_one_raised(doow_: MemoryTransport) -> None:
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
    assert (metrics_of(doow_), len(doow_.batches)) == (["invocations"], 1)


# ── batches of records ──────────────────────────────────────────────────────────────────────────


def meter(body: str) -> str:
    """The work of a record: two events, between which a bad one fails."""
    doow.track(f"begun-{body}")
    if body.startswith("bad"):
        raise ValueError(body)
    doow.track(f"done-{body}")
    return body


SOURCES = {
    "SQS": (
        EventType.SQS,
        batch(sqs_record("m-1", "a"), sqs_record("m-2", "bad"), sqs_record("m-3", "c")),
        lambda record: record.body,
        "m-2",
    ),
    "Kinesis": (
        EventType.KinesisDataStreams,
        batch(kinesis_record("1", "a"), kinesis_record("2", "bad"), kinesis_record("3", "c")),
        lambda record: record.kinesis.data_as_text(),
        "2",
    ),
    "DynamoDB": (
        EventType.DynamoDBStreams,
        batch(dynamodb_record("1", "a"), dynamodb_record("2", "bad"), dynamodb_record("3", "c")),
        lambda record: record.dynamodb.new_image["body"],
        "2",
    ),
    "Kafka": (
        EventType.Kafka,
        {"records": {"t-0": [kafka_record(1, "a"), kafka_record(2, "bad"), kafka_record(3, "c")]}},
        lambda record: record.decoded_value.decode(),
        {"partition": "clicks-0", "offset": 2},
    ),
}


@pytest.fixture(params=["sync", "async"])
def process(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Processes an event with Powertools, sync or async, the handler plain or decorated."""

    def run_sync(event_type: EventType, event: Any, body: Any, decorate: Any, ctx: Any) -> Any:
        handler = decorate(lambda record: meter(body(record)))
        return process_partial_response(event, handler, BatchProcessor(event_type), ctx)

    def run_async(event_type: EventType, event: Any, body: Any, decorate: Any, ctx: Any) -> Any:
        async def handler(record: Any) -> str:
            await asyncio.sleep(0)
            return meter(body(record))

        processor = AsyncBatchProcessor(event_type)
        return async_process_partial_response(event, decorate(handler), processor, ctx)

    return run_sync if request.param == "sync" else run_async


@pytest.mark.parametrize("source", SOURCES)
def test_a_record_that_fails_leaves_no_events(
    source: str, process: Callable[..., Any], doow_: MemoryTransport
) -> None:
    """The others leave theirs, in one POST; the response is as without us."""
    event_type, event, body, failed = SOURCES[source]

    @doow.tracked
    def handler(decorate: Any, context: Any) -> Any:
        return process(event_type, event, body, decorate, context)

    response = handler(record_transaction, new_context())
    assert response == {"batchItemFailures": [{"itemIdentifier": failed}]}
    assert sorted(metrics_of(doow_)) == ["begun-a", "begun-c", "done-a", "done-c"]
    assert len(doow_.batches) == 1
    assert response == handler(lambda undecorated: undecorated, new_context())


@pytest.mark.parametrize("source", SOURCES)
def test_a_record_delivered_again_counts_once(
    source: str, process: Callable[..., Any], doow_: MemoryTransport
) -> None:
    """Its batch is its own and is known again, in another invocation and among others or alone."""
    event_type, event, body, _ = SOURCES[source]

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> Any:
        return process(event_type, event, body, record_transaction, context)

    handler(event, new_context(request_id="req-1"))
    first, third = ({**event, key: value} for key, value in _alone(event, 0) + _alone(event, 2))
    known = {batch.id for batch in doow_.batches}
    assert (len(known), len(doow_.events)) == (2, 4)
    handler(first, new_context(request_id="req-2"))
    handler(third, new_context(request_id="req-3"))
    assert {batch.id for batch in doow_.batches} == known
    assert (len(doow_.batches), len(doow_.events)) == (4, 4)


def _alone(event: dict[str, Any], number: int) -> list[tuple[str, Any]]:
    if "records" in event:
        ((partition, records),) = event["records"].items()
        return [("records", {partition: [records[number]]})]
    return [("Records", [event["Records"][number]])]


def test_the_same_records_again_count_once(
    process: Callable[..., Any], doow_: MemoryTransport
) -> None:
    """A batch whose invocation failed comes again as a whole, in any order, under the same id."""
    records = [sqs_record(f"m-{number}", "abc"[number]) for number in range(3)]

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> Any:
        process(EventType.SQS, event, lambda record: record.body, record_transaction, None)
        raise KeyError

    for again in (records, records[::-1]):
        with pytest.raises(KeyError):
            handler(batch(*again), new_context())
    ids = sorted(batch.id for batch in doow_.batches)
    assert (ids[::2], len(set(ids))) == (ids[1::2], 3)
    assert len(doow_.events) == 6


def test_equal_records_are_told_apart_by_their_identity(
    process: Callable[..., Any], doow_: MemoryTransport
) -> None:
    """Messages that say the same are counted each, and each once."""
    event = batch(*(sqs_record(f"m-{number}") for number in range(3)))

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> Any:
        return process(EventType.SQS, event, lambda record: record.body, record_transaction, None)

    for request_id in ("req-1", "req-2"):
        handler(event, new_context(request_id=request_id))
    assert len(set(ids_of(doow_))) == 6


def test_ids_are_random_unless_idempotent(
    process: Callable[..., Any], doow_: MemoryTransport
) -> None:
    """Without ``tracked(idempotent=True)`` a message delivered again counts again."""

    @doow.tracked
    def handler(event: Any, context: Any) -> Any:
        return process(EventType.SQS, event, lambda record: record.body, record_transaction, None)

    for _ in range(2):
        handler(batch(sqs_record("m-1")), new_context())
    assert len(set(ids_of(doow_))) == 4


@pytest.mark.parametrize(
    ("skip_group", "expected"),
    [(False, ["begun-a", "done-a"]), (True, ["begun-a", "done-a", "begun-d", "done-d"])],
)
def test_a_fifo_queue_stops_at_the_first_failure(
    skip_group: bool, expected: list[str], doow_: MemoryTransport
) -> None:
    """What is not processed any more leaves no events; other groups go on where they may."""
    event = batch(
        sqs_record("m-1", "a", group="1"),
        sqs_record("m-2", "bad", group="1"),
        sqs_record("m-3", "c", group="1"),
        sqs_record("m-4", "d", group="2"),
    )

    def respond(decorate: Any) -> Any:
        processor = SqsFifoPartialProcessor(skip_group_on_error=skip_group)
        return process_partial_response(event, decorate(by_body), processor, None)

    def by_body(record: SQSRecord) -> str:
        return meter(record.body)

    response = doow.tracked(respond)(record_transaction)
    assert metrics_of(doow_) == expected
    assert response == respond(lambda undecorated: undecorated)


def test_concurrent_records_are_independent(doow_: MemoryTransport) -> None:
    """Records of an async batch interleave; each is kept or forgotten for itself."""
    begun, all_begun = [], asyncio.Event()

    @record_transaction
    async def process(record: SQSRecord) -> None:
        doow.track(f"begun-{record.body}")
        begun.append(record)
        if len(begun) == 20:
            all_begun.set()
        await all_begun.wait()
        number = int(record.body)
        await asyncio.sleep((20 - number) / 10_000)
        doow.track(f"done-{number}")
        if number % 2:
            raise ValueError(number)

    @doow.tracked
    def handler(event: Any, context: Any) -> Any:
        processor = AsyncBatchProcessor(EventType.SQS)
        return async_process_partial_response(event, process, processor, context)

    event = batch(*(sqs_record(f"m-{number}", str(number)) for number in range(20)))
    failures = handler(event, new_context())["batchItemFailures"]
    assert {failure["itemIdentifier"] for failure in failures} == {
        f"m-{number}" for number in range(1, 20, 2)
    }
    expected = [f"{when}-{number}" for when in ("begun", "done") for number in range(0, 20, 2)]
    assert sorted(metrics_of(doow_)) == sorted(expected)


def test_transactions_nest_in_that_of_the_record(doow_: MemoryTransport) -> None:
    """A user's transaction that fails takes only its own events; that of the record takes all."""

    @record_transaction
    def process(record: SQSRecord) -> None:
        doow.track("outer")
        with doow.transaction():
            doow.track("inner")
        try:
            with doow.transaction():
                doow.track("lost")
                raise KeyError
        except KeyError:
            doow.track("recovered")
        if record.body == "bad":
            raise ValueError

    @doow.tracked
    def handler(event: Any, context: Any) -> Any:
        return process_partial_response(event, process, BatchProcessor(EventType.SQS), context)

    handler(batch(sqs_record("m-1"), sqs_record("m-2", "bad")), new_context())
    assert metrics_of(doow_) == ["outer", "inner", "recovered"]


def test_a_batch_that_fails_as_a_whole_leaves_no_events(doow_: MemoryTransport) -> None:
    """Powertools raises then; nothing is left to deliver, and its exception passes."""

    @doow.tracked
    def handler(event: Any, context: Any) -> Any:
        process = record_transaction(lambda record: meter(record.body))
        return process_partial_response(event, process, BatchProcessor(EventType.SQS), context)

    with pytest.raises(BatchProcessingError):
        handler(batch(sqs_record("m-1", "bad")), new_context())
    assert doow_.batches == []


def test_without_tracked_the_events_leave_with_the_next_flush(
    process: Callable[..., Any], doow_: MemoryTransport
) -> None:
    """They are kept, those of failed records are not."""
    event = batch(sqs_record("m-1", "a"), sqs_record("m-2", "bad"))
    process(EventType.SQS, event, lambda record: record.body, record_transaction, None)
    assert doow_.batches == []
    assert doow.flush().accepted == 2
    assert sorted(metrics_of(doow_)) == ["begun-a", "done-a"]


def test_the_lambda_context_is_still_injected(doow_: MemoryTransport) -> None:
    """Powertools reads the signature of the record handler, which stays what it was."""
    seen = []

    @record_transaction
    def process(record: SQSRecord, lambda_context: Any) -> None:
        seen.append((record.message_id, lambda_context))

    context = new_context()
    processor = BatchProcessor(EventType.SQS)
    process_partial_response(batch(sqs_record("m-1")), process, processor, context)
    assert seen == [("m-1", context)]
    assert process.__name__ == "process"


def test_an_async_record_handler_stays_one() -> None:
    """Other decorators look at what it is, at its name and at its signature."""

    async def process(record: SQSRecord, lambda_context: Any) -> None: ...

    decorated = record_transaction(process)
    assert inspect.iscoroutinefunction(decorated)
    assert decorated.__name__ == "process"
    assert inspect.signature(decorated) == inspect.signature(process)


class Consumer:
    @record_transaction
    def by_method(self, record: Any) -> None:
        doow.track("documents")

    async def __call__(self, record: Any) -> None:
        doow.track("documents")
        if record["body"] == "bad":
            raise ValueError


def test_a_record_is_found_by_position(doow_: MemoryTransport) -> None:
    """As a test of one's own calls a handler, or a method; the dict that Lambda passes will do."""

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> None:
        for record in event:
            Consumer().by_method(record)

    handler([sqs_record("m-1"), sqs_record("m-2")], new_context(request_id="req-1"))
    handler([sqs_record("m-2")], new_context(request_id="req-2"))
    ids = sorted(batch.id for batch in doow_.batches)
    assert (len(ids), len(set(ids)), len(doow_.events)) == (3, 2, 2)


def test_any_callable_may_handle_records(doow_: MemoryTransport) -> None:
    """An object that is called, whose coroutine runs after the call, is a transaction, too."""
    process = record_transaction(Consumer())

    @doow.tracked
    def handler(event: Any, context: Any) -> Any:
        processor = AsyncBatchProcessor(EventType.SQS)
        return async_process_partial_response(event, process, processor, context)

    handler(batch(sqs_record("m-1"), sqs_record("m-2", "bad")), new_context())
    assert metrics_of(doow_) == ["documents"]


def test_record_transaction_takes_a_tracker(new_tracker: Callable[..., Tracker]) -> None:
    """With ``tracker=`` it is a transaction of that tracker, and what its functions mean."""
    transport = MemoryTransport()
    tracker = new_tracker(transport=transport)

    @record_transaction(tracker=tracker)
    def process(record: SQSRecord) -> None:
        tracker.track("own")
        doow.track("current")
        if record.body == "bad":
            raise ValueError

    event = batch(sqs_record("m-1"), sqs_record("m-2", "bad"))
    process_partial_response(event, process, BatchProcessor(EventType.SQS))
    tracker.flush()
    assert metrics_of(transport) == ["own", "current"]


def test_only_callables_handle_records() -> None:
    """A mistake is told where it is made."""
    with pytest.raises(ConfigurationError, match="record_transaction"):
        record_transaction("process")  # type: ignore[call-overload]  # on purpose


IDENTITIES = [
    (sqs_record("m-1"), SQSRecord, "SqsRecordModel", "m-1"),
    (
        kinesis_record("49"),
        KinesisStreamRecord,
        "KinesisDataStreamRecord",
        f"{STREAM}/shardId-000000000000:49",
    ),
    (dynamodb_record("e-1"), DynamoDBRecord, "DynamoDBStreamRecordModel", f"{TABLE}/e-1"),
    (kafka_record(7), KafkaEventRecord, "KafkaRecordModel", "clicks-0/7"),
]


@pytest.mark.parametrize(("record", "data_class", "model", "expected"), IDENTITIES)
def test_the_identity_of_a_record(
    record: dict[str, Any], data_class: Any, model: str, expected: str
) -> None:
    """It is the same for the dict, the data class, and the model of the parser."""
    assert record_identity(record) == expected
    assert record_identity(data_class(record)) == expected
    pytest.importorskip("pydantic")
    from aws_lambda_powertools.utilities.parser import models

    assert record_identity(getattr(models, model)(**record)) == expected


@pytest.mark.parametrize(
    "record",
    [None, "m-1", 7, {}, {"messageId": ""}, {"messageId": 7}, {"eventID": 7}, {"topic": "t"}],
)
def test_what_has_no_identity(record: object) -> None:
    """Then ids derive from the invocation, or are random, as without us."""
    assert record_identity(record) is None


def test_a_model_of_the_parser_may_be_used(doow_: MemoryTransport) -> None:
    """A record that the model refuses never reaches the handler, and leaves no events."""
    pydantic = pytest.importorskip("pydantic")
    from aws_lambda_powertools.utilities.parser.models import SqsRecordModel

    class Job(pydantic.BaseModel):  # type: ignore[misc,name-defined]  # from importorskip
        size: int

    class Record(SqsRecordModel):
        body: pydantic.Json[Job]  # type: ignore[name-defined]

    @record_transaction
    def process(record: Record) -> None:
        doow.track("size", record.body.size)

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> Any:
        processor = BatchProcessor(EventType.SQS, model=Record)
        return process_partial_response(event, process, processor, context)

    event = batch(sqs_record("m-1", '{"size": 3}'), sqs_record("m-2", "poison"))
    for request_id in ("req-1", "req-2"):
        response = handler(event, new_context(request_id=request_id))
        assert response == {"batchItemFailures": [{"itemIdentifier": "m-2"}]}
    assert (metrics_of(doow_)[0], len(set(ids_of(doow_)))) == ("size", 1)


class Hostile:
    @property
    def messageId(self) -> str:  # noqa: N802
        raise RuntimeError("no")


@pytest.mark.contains
def test_a_record_that_cannot_be_read_is_still_processed(
    doow_: MemoryTransport, contained_faults: list[str]
) -> None:
    """Looking for an identity never keeps a record from its handler."""
    assert record_transaction(lambda record: "result")(Hostile()) == "result"
    assert len(contained_faults) == 1


# ── metrics ─────────────────────────────────────────────────────────────────────────────────────


def emf(line: str) -> dict[str, Any]:
    """A line of embedded metric format, checked by the rules of its specification.

    https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
    """
    document: dict[str, Any] = json.loads(line)
    assert set(document["_aws"]) == {"Timestamp", "CloudWatchMetrics"}
    assert type(document["_aws"]["Timestamp"]) is int
    for directive in document["_aws"]["CloudWatchMetrics"]:
        assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
        assert 1 <= len(directive["Namespace"]) <= 1024
        for names in directive["Dimensions"]:
            assert len(names) <= 30
            assert all(isinstance(document[name], str) and document[name] for name in names)
        assert 1 <= len(directive["Metrics"]) <= 100
        for metric in directive["Metrics"]:
            assert set(metric) == {"Name", "Unit"}
            assert metric["Unit"] in {"Count", "Milliseconds"}
            values = document[metric["Name"]]
            assert values
            assert all(type(value) is float for value in values)
    return document


def test_each_flush_writes_its_metrics(
    key: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line in the embedded metric format, and none for a flush without events."""
    monkeypatch.delenv("POWERTOOLS_SERVICE_NAME", raising=False)
    on_flush = cloudwatch_metrics("MyApp", service="documents", stage="prod")
    doow.configure(key, transport=MemoryTransport(), license_id="lic_1", on_flush=on_flush)

    @doow.tracked
    def handler(events: int) -> None:
        for _ in range(events):
            doow.track("tokens")

    handler(2)
    handler(0)
    (document,) = map(emf, capsys.readouterr().out.splitlines())
    (directive,) = document.pop("_aws")["CloudWatchMetrics"]
    assert directive == {
        "Namespace": "MyApp",
        "Dimensions": [["stage", "service"]],
        "Metrics": [
            {"Name": "EventsAccepted", "Unit": "Count"},
            {"Name": "EventsRejected", "Unit": "Count"},
            {"Name": "EventsUnsent", "Unit": "Count"},
            {"Name": "FlushTime", "Unit": "Milliseconds"},
            {"Name": "BacklogEvents", "Unit": "Count"},
        ],
    }
    (flush_ms,) = document.pop("FlushTime")
    assert 0 < flush_ms < 1000
    assert document == {
        "stage": "prod",
        "service": "documents",
        "EventsAccepted": [2.0],
        "EventsRejected": [0.0],
        "EventsUnsent": [0.0],
        "BacklogEvents": [0.0],
    }


def test_an_outage_shows_in_the_metrics(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What was not delivered is unsent, and stands in the backlog."""
    doow.configure(
        key,
        transport=MemoryTransport(lambda _: 503),
        license_id="lic_1",
        on_flush=cloudwatch_metrics("MyApp"),
        on_error=lambda _: None,
    )
    doow.track("tokens")
    doow.flush(0.05)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if '"_aws"' in line)
    document = emf(line)
    fates = [document[name] for name in ("EventsAccepted", "EventsUnsent", "BacklogEvents")]
    assert fates == [[0.0], [1.0], [1.0]]


def test_the_metrics_tell_every_fate(capsys: pytest.CaptureFixture[str]) -> None:
    """Rejected and unsent events are counted, whatever the reason, and so is the backlog."""
    outcome = doow.Outcome(
        accepted=5,
        rejected=[("evt_1", "unknown metric"), ("evt_2", "unknown metric")],
        unsent={ErrorKind.TIMEOUT: 3, ErrorKind.DROPPED_EVENTS: 1},
        requests=2,
        elapsed_s=0.25,
        backlog=7,
    )
    cloudwatch_metrics("MyApp")(outcome)
    document = emf(capsys.readouterr().out)
    del document["_aws"]
    assert document == {
        "EventsAccepted": [5.0],
        "EventsRejected": [2.0],
        "EventsUnsent": [4.0],
        "FlushTime": [250.0],
        "BacklogEvents": [7.0],
    }


def test_the_metrics_of_the_user_stay_their_own(
    doow_: MemoryTransport, capsys: pytest.CaptureFixture[str]
) -> None:
    """Powertools' Metrics, which share their state, are neither flushed nor added to."""
    hook = cloudwatch_metrics("MyApp", stage="prod")
    metrics = Metrics(namespace="Theirs", service="theirs")

    @metrics.log_metrics
    def handler(event: Any, context: Any) -> None:
        metrics.add_metric("Orders", "Count", 1)
        hook(doow.Outcome(accepted=1))
        metrics.add_metric("Orders", "Count", 2)

    handler({}, new_context())
    ours, theirs = map(emf, capsys.readouterr().out.splitlines())
    assert "Orders" not in ours
    assert ours["stage"] == "prod"
    (directive,) = theirs.pop("_aws")["CloudWatchMetrics"]
    assert directive["Dimensions"] == [["service"]]
    assert theirs == {"service": "theirs", "Orders": [1.0, 2.0]}


def test_namespace_and_service_come_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the variables of Powertools, of which one silences all metrics."""
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Theirs")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "documents")
    hook = cloudwatch_metrics()
    hook(doow.Outcome())
    document = emf(capsys.readouterr().out)
    assert document["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "Theirs"
    assert document["service"] == "documents"

    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    hook(doow.Outcome())
    assert capsys.readouterr().out == ""


def test_metrics_that_cannot_be_written_are_refused_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a namespace, or with too many dimensions, no hook is made."""
    monkeypatch.delenv("POWERTOOLS_METRICS_NAMESPACE", raising=False)
    with pytest.raises(ConfigurationError, match="namespace"):
        cloudwatch_metrics()
    too_many = {f"dimension{number}": "x" for number in range(31)}
    with pytest.raises(ConfigurationError, match="dimensions"):
        cloudwatch_metrics("MyApp", **too_many)

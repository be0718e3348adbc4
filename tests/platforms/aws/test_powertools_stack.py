"""All of Powertools around one handler, and a replayed idempotent call, which records nothing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.powertools import DoowMiddleware, record_transaction
from tests.metering import metrics
from tests.platforms.aws.powertools_events import new_context, rest_event, sqs_record

pytest.importorskip("aws_lambda_powertools")
pytest.importorskip("aws_xray_sdk")
pytest.importorskip("pydantic")

from aws_lambda_powertools import Logger, Metrics, Tracer
from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.idempotency import (
    BasePersistenceLayer,
    IdempotencyConfig,
    idempotent,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyItemAlreadyExistsError,
    IdempotencyItemNotFoundError,
)
from aws_lambda_powertools.utilities.parser import BaseModel, event_parser

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
    from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord

    from doow_serverless.testing import MemoryTransport


class Memory(BasePersistenceLayer):
    """Keeps what an idempotent handler has answered, as a table of DynamoDB does."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._records: dict[str, DataRecord] = {}

    def _get_record(self, idempotency_key: str) -> DataRecord:
        if idempotency_key not in self._records:
            raise IdempotencyItemNotFoundError
        return self._records[idempotency_key]

    def _put_record(self, data_record: DataRecord) -> None:
        if data_record.idempotency_key in self._records:
            raise IdempotencyItemAlreadyExistsError
        self._records[data_record.idempotency_key] = data_record

    def _update_record(self, data_record: DataRecord) -> None:
        self._records[data_record.idempotency_key] = data_record

    def _delete_record(self, data_record: DataRecord) -> None:
        self._records.pop(data_record.idempotency_key, None)


class Order(BaseModel):
    """What the parser makes of the event."""

    order: str
    fails: bool = False


@pytest.fixture(autouse=True)
def _powertools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "orders")
    monkeypatch.setenv("POWERTOOLS_TRACE_DISABLED", "true")
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Orders")


def stacked(order: str, memory: Memory) -> Callable[..., Any]:
    """A handler under all of them; ours outermost, or innermost."""
    logger, tracer, theirs = Logger(), Tracer(), Metrics()
    config = IdempotencyConfig(event_key_jmespath="order")

    def work(event: Order, context: Any) -> dict[str, str]:
        doow.track("orders")
        logger.info("ordered")
        theirs.add_metric(name="Orders", unit="Count", value=1)
        if event.fails:
            raise ValueError(event.order)
        return {"order": event.order}

    ours: Any = doow.tracked(on_exception="discard")
    once: Any = idempotent
    stack: list[Any] = [
        lambda handler: event_parser(handler, model=Order),  # type: ignore[call-overload]
        lambda handler: once(handler, persistence_store=memory, config=config),
        theirs.log_metrics,
        tracer.capture_lambda_handler,
        logger.inject_lambda_context,
    ]
    handler: Any = work
    for decorate in [*stack, ours] if order == "outermost" else [ours, *stack]:
        handler = decorate(handler)
    return handler  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:No application metrics")
@pytest.mark.parametrize("order", ["outermost", "innermost"])
def test_a_replayed_call_records_nothing(order: str, strict_events: MemoryTransport) -> None:
    """The same answer, and no second count; a call that failed is done, and counted, again."""
    handler = stacked(order, Memory())
    answers = [handler({"order": name}, new_context()) for name in ("a", "a", "b", "a")]
    assert answers == [{"order": name} for name in ("a", "a", "b", "a")]
    assert metrics(strict_events.events) == ["orders"] * 2
    with pytest.raises(ValueError, match="c"):
        handler({"order": "c", "fails": True}, new_context())
    assert handler({"order": "c"}, new_context()) == {"order": "c"}
    assert metrics(strict_events.events) == ["orders"] * 3
    assert len(strict_events.batches) == 3


def test_batch_under_all_of_them(strict_events: MemoryTransport) -> None:
    """Records that fail are reported, and not counted; logger and tracer stand around it all."""
    logger, tracer = Logger(), Tracer()
    processor = BatchProcessor(event_type=EventType.SQS)

    @record_transaction
    @tracer.capture_method
    def process(record: SQSRecord) -> None:
        doow.track("documents")
        if record.body == "bad":
            raise ValueError

    @doow.tracked(idempotent=True)
    @logger.inject_lambda_context
    @tracer.capture_lambda_handler
    def handler(event: dict[str, Any], context: Any) -> Any:
        return process_partial_response(event, process, processor, context)

    records = [sqs_record("1"), sqs_record("2", "bad"), sqs_record("3")]
    answer = handler({"Records": records}, new_context())
    assert answer == {"batchItemFailures": [{"itemIdentifier": "2"}]}
    assert metrics(strict_events.events) == ["documents"] * 2


@pytest.mark.parametrize("is_async", [False, True], ids=["resolve", "resolve_async"])
def test_the_event_handler_under_all_of_them(
    is_async: bool, strict_events: MemoryTransport
) -> None:
    """Its middleware names the route; a replayed request is answered from memory."""
    if is_async and not hasattr(APIGatewayRestResolver, "resolve_async"):
        pytest.skip("Powertools is older")
    logger, tracer, theirs = Logger(), Tracer(), Metrics()
    app = APIGatewayRestResolver()
    app.use(middlewares=[DoowMiddleware(route_attribution=True)])

    def serve(order: str) -> dict[str, str]:
        doow.track("orders")
        return {"order": order}

    async def serve_async(order: str) -> dict[str, str]:
        await asyncio.sleep(0)
        return serve(order)

    app.post("/orders/<order>")(serve_async if is_async else serve)

    @logger.inject_lambda_context
    @tracer.capture_lambda_handler
    @theirs.log_metrics
    @idempotent(persistence_store=Memory(), config=IdempotencyConfig(event_key_jmespath="path"))
    @doow.tracked(metric="requests")
    def handler(event: dict[str, Any], context: Any) -> Any:
        theirs.add_metric(name="Requests", unit="Count", value=1)
        if is_async:
            return asyncio.run(app.resolve_async(event, context))
        return app.resolve(event, context)

    with pytest.warns(UserWarning, match="No application metrics"):
        answers = [handler(rest_event("/orders/7", "POST"), new_context()) for _ in range(2)]
    assert [json.loads(answer["body"]) for answer in answers] == [{"order": "7"}] * 2
    assert metrics(strict_events.events) == ["requests", "orders"]
    assert strict_events.events[1]["attribution"] == {"route": "/orders/<order>", "method": "POST"}
    assert len(strict_events.batches) == 1

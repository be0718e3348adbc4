"""Powertools' batch processors, with record handlers that are transactions."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.errors import ConfigurationError
from doow_serverless.powertools import (
    record_transaction,
)
from doow_serverless.testing import MemoryTransport
from tests.metering import metrics
from tests.platforms.aws.powertools_events import (
    batch,
    dynamodb_record,
    kafka_record,
    kinesis_record,
    new_context,
    sqs_record,
)

pytest.importorskip("aws_lambda_powertools")

from aws_lambda_powertools.utilities.batch import (
    AsyncBatchProcessor,
    BatchProcessor,
    EventType,
    SqsFifoPartialProcessor,
    async_process_partial_response,
    process_partial_response,
)
from aws_lambda_powertools.utilities.batch.exceptions import BatchProcessingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

    from doow_serverless import Tracker


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
    source: str, process: Callable[..., Any], strict_events: MemoryTransport
) -> None:
    """The others leave theirs, in one POST; the response is as without us."""
    event_type, event, body, failed = SOURCES[source]

    @doow.tracked
    def handler(decorate: Any, context: Any) -> Any:
        return process(event_type, event, body, decorate, context)

    response = handler(record_transaction, new_context())
    assert response == {"batchItemFailures": [{"itemIdentifier": failed}]}
    assert sorted(metrics(strict_events.events)) == ["begun-a", "begun-c", "done-a", "done-c"]
    assert len(strict_events.batches) == 1
    assert response == handler(lambda undecorated: undecorated, new_context())


@pytest.mark.parametrize("source", SOURCES)
def test_a_record_delivered_again_counts_once(
    source: str, process: Callable[..., Any], strict_events: MemoryTransport
) -> None:
    """Its batch is its own and is known again, in another invocation and among others or alone."""
    event_type, event, body, _ = SOURCES[source]

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> Any:
        return process(event_type, event, body, record_transaction, context)

    handler(event, new_context(request_id="req-1"))
    first, third = ({**event, key: value} for key, value in _alone(event, 0) + _alone(event, 2))
    known = {batch.id for batch in strict_events.batches}
    assert (len(known), len(strict_events.events)) == (2, 4)
    handler(first, new_context(request_id="req-2"))
    handler(third, new_context(request_id="req-3"))
    assert {batch.id for batch in strict_events.batches} == known
    assert (len(strict_events.batches), len(strict_events.events)) == (4, 4)


def _alone(event: dict[str, Any], number: int) -> list[tuple[str, Any]]:
    if "records" in event:
        ((partition, records),) = event["records"].items()
        return [("records", {partition: [records[number]]})]
    return [("Records", [event["Records"][number]])]


def test_the_same_records_again_count_once(
    process: Callable[..., Any], strict_events: MemoryTransport
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
    ids = sorted(batch.id for batch in strict_events.batches)
    assert (ids[::2], len(set(ids))) == (ids[1::2], 3)
    assert len(strict_events.events) == 6


def test_equal_records_are_told_apart_by_their_identity(
    process: Callable[..., Any], strict_events: MemoryTransport
) -> None:
    """Messages that say the same are counted each, and each once."""
    event = batch(*(sqs_record(f"m-{number}") for number in range(3)))

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> Any:
        return process(EventType.SQS, event, lambda record: record.body, record_transaction, None)

    for request_id in ("req-1", "req-2"):
        handler(event, new_context(request_id=request_id))
    assert len({event["event_id"] for event in strict_events.events}) == 6


def test_ids_are_random_unless_idempotent(
    process: Callable[..., Any], strict_events: MemoryTransport
) -> None:
    """Without ``tracked(idempotent=True)`` a message delivered again counts again."""

    @doow.tracked
    def handler(event: Any, context: Any) -> Any:
        return process(EventType.SQS, event, lambda record: record.body, record_transaction, None)

    for _ in range(2):
        handler(batch(sqs_record("m-1")), new_context())
    assert len({event["event_id"] for event in strict_events.events}) == 4


@pytest.mark.parametrize(
    ("skip_group", "expected"),
    [(False, ["begun-a", "done-a"]), (True, ["begun-a", "done-a", "begun-d", "done-d"])],
)
def test_a_fifo_queue_stops_at_the_first_failure(
    skip_group: bool, expected: list[str], strict_events: MemoryTransport
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
    assert metrics(strict_events.events) == expected
    assert response == respond(lambda undecorated: undecorated)


def test_concurrent_records_are_independent(strict_events: MemoryTransport) -> None:
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
    assert sorted(metrics(strict_events.events)) == sorted(expected)


def test_transactions_nest_in_that_of_the_record(strict_events: MemoryTransport) -> None:
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
    assert metrics(strict_events.events) == ["outer", "inner", "recovered"]


def test_a_batch_that_fails_as_a_whole_leaves_no_events(strict_events: MemoryTransport) -> None:
    """Powertools raises then; nothing is left to deliver, and its exception passes."""

    @doow.tracked
    def handler(event: Any, context: Any) -> Any:
        process = record_transaction(lambda record: meter(record.body))
        return process_partial_response(event, process, BatchProcessor(EventType.SQS), context)

    with pytest.raises(BatchProcessingError):
        handler(batch(sqs_record("m-1", "bad")), new_context())
    assert strict_events.batches == []


def test_without_tracked_the_events_leave_with_the_next_flush(
    process: Callable[..., Any], strict_events: MemoryTransport
) -> None:
    """They are kept, those of failed records are not."""
    event = batch(sqs_record("m-1", "a"), sqs_record("m-2", "bad"))
    process(EventType.SQS, event, lambda record: record.body, record_transaction, None)
    assert strict_events.batches == []
    assert doow.flush().accepted == 2
    assert sorted(metrics(strict_events.events)) == ["begun-a", "done-a"]


def test_the_lambda_context_is_still_injected(strict_events: MemoryTransport) -> None:
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


def test_a_record_is_found_by_position(strict_events: MemoryTransport) -> None:
    """As a test of one's own calls a handler, or a method; the dict that Lambda passes will do."""

    @doow.tracked(idempotent=True)
    def handler(event: Any, context: Any) -> None:
        for record in event:
            Consumer().by_method(record)

    handler([sqs_record("m-1"), sqs_record("m-2")], new_context(request_id="req-1"))
    handler([sqs_record("m-2")], new_context(request_id="req-2"))
    ids = sorted(batch.id for batch in strict_events.batches)
    assert (len(ids), len(set(ids)), len(strict_events.events)) == (3, 2, 2)


def test_any_callable_may_handle_records(strict_events: MemoryTransport) -> None:
    """An object that is called, whose coroutine runs after the call, is a transaction, too."""
    process = record_transaction(Consumer())

    @doow.tracked
    def handler(event: Any, context: Any) -> Any:
        processor = AsyncBatchProcessor(EventType.SQS)
        return async_process_partial_response(event, process, processor, context)

    handler(batch(sqs_record("m-1"), sqs_record("m-2", "bad")), new_context())
    assert metrics(strict_events.events) == ["documents"]


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
    assert metrics(transport.events) == ["own", "current"]


def test_only_callables_handle_records() -> None:
    """A mistake is told where it is made."""
    with pytest.raises(ConfigurationError, match="record_transaction"):
        record_transaction("process")  # type: ignore[call-overload]  # on purpose

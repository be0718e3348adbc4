"""What names a record again, in whichever form Powertools passes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.powertools import (
    record_identity,
    record_transaction,
)
from tests.lambda_context import LambdaContext
from tests.metering import metrics
from tests.platforms.aws.powertools_events import (
    STREAM,
    TABLE,
    batch,
    dynamodb_record,
    kafka_record,
    kinesis_record,
    sqs_record,
)

pytest.importorskip("aws_lambda_powertools")

from aws_lambda_powertools.utilities.batch import (
    BatchProcessor,
    EventType,
    process_partial_response,
)
from aws_lambda_powertools.utilities.data_classes.dynamo_db_stream_event import DynamoDBRecord
from aws_lambda_powertools.utilities.data_classes.kafka_event import KafkaEventRecord
from aws_lambda_powertools.utilities.data_classes.kinesis_stream_event import KinesisStreamRecord
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

if TYPE_CHECKING:
    from doow_serverless.testing import MemoryTransport


IDENTITIES = [
    (sqs_record("m-1"), SQSRecord, "SqsRecordModel", "m-1"),
    (
        kinesis_record("49"),
        KinesisStreamRecord,
        "KinesisDataStreamRecord",
        f"shardId-000000000000:49/{STREAM}",
    ),
    (dynamodb_record("e-1"), DynamoDBRecord, "DynamoDBStreamRecordModel", f"e-1/{TABLE}"),
    (kafka_record(7), KafkaEventRecord, "KafkaRecordModel", "clicks/0/7"),
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


def test_a_model_of_the_parser_may_be_used(strict_events: MemoryTransport) -> None:
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
        response = handler(event, LambdaContext(request_id=request_id))
        assert response == {"batchItemFailures": [{"itemIdentifier": "m-2"}]}
    assert (
        metrics(strict_events.events)[0],
        len({event["event_id"] for event in strict_events.events}),
    ) == ("size", 1)


class Hostile:
    @property
    def messageId(self) -> str:  # noqa: N802
        raise RuntimeError("no")


def test_a_record_that_cannot_be_read_is_still_processed(strict_events: MemoryTransport) -> None:
    """Nothing of it is run to look for an identity."""
    assert record_transaction(lambda record: "result")(Hostile()) == "result"

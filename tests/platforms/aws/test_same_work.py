"""Events of AWS that come again in another invocation, and attempts that fail, count once."""

from __future__ import annotations

import copy
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from aws_lambda_powertools.utilities import data_classes

from doow_serverless._platforms.aws import find_deadline, find_identity
from doow_serverless._platforms.aws_events import record_name, work_of
from doow_serverless.local.lambda_runtime import LambdaRuntime
from tests.batches import find_records
from tests.lambda_context import LambdaContext
from tests.network import KEY
from tests.platforms.aws.powertools_events import dynamodb_record, kinesis_record, sqs_record
from tests.platforms.aws.retries import counted, invoke

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import doow_serverless as doow
    from doow_serverless.local import Ingest

ARN = "arn:aws:x:eu-west-1:123456789012:y"


def kafka(offset: int) -> dict[str, Any]:
    record = {
        "topic": "clicks", "partition": 0, "offset": offset, "timestamp": 1, "value": "e30=",
        "timestampType": "CREATE_TIME", "key": "a2V5", "headers": [],
    }  # fmt: skip
    return {
        "eventSource": "aws:kafka", "eventSourceArn": ARN, "bootstrapServers": "b-1:9092",
        "records": {"clicks-0": [record], "clicks-1": [{**record, "partition": 1}]},
    }  # fmt: skip


def s3(sequencer: str) -> dict[str, Any]:
    record = {
        "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "eu-west-1",
        "eventTime": "2026-01-01T00:00:00.000Z", "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:AIDA"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": "D82B", "x-amz-id-2": "vlR7"},
        "s3": {
            "s3SchemaVersion": "1.0", "configurationId": "c",
            "bucket": {"name": "b", "ownerIdentity": {"principalId": "A"}, "arn": "arn:aws:s3:::b"},
            "object": {"key": "k", "size": 1, "eTag": "d4", "sequencer": sequencer},
        },
    }  # fmt: skip
    return {"Records": [record]}


def sns(message_id: str) -> dict[str, Any]:
    message = {
        "Type": "Notification", "MessageId": message_id, "TopicArn": ARN, "Subject": "s",
        "Message": "hello", "Timestamp": "2026-01-01T00:00:00.000Z", "SignatureVersion": "1",
        "Signature": "x", "SigningCertUrl": "https://sns.eu-west-1.amazonaws.com/x.pem",
        "UnsubscribeUrl": "https://sns.eu-west-1.amazonaws.com/", "MessageAttributes": {},
    }  # fmt: skip
    record = {"EventVersion": "1.0", "EventSubscriptionArn": ARN, "EventSource": "aws:sns"}
    return {"Records": [{**record, "Sns": message}]}


def eventbridge(name: str) -> dict[str, Any]:
    return {
        "version": "0", "id": name, "detail-type": "Order placed", "source": "shop",
        "account": "123456789012", "time": "2026-01-01T00:00:00Z", "region": "eu-west-1",
        "resources": [], "detail": {"a": 1},
    }  # fmt: skip


def firehose(number: str) -> dict[str, Any]:
    record = {"recordId": number, "approximateArrivalTimestamp": 1_700_000_000_000, "data": "e30="}
    return {
        "invocationId": "invoked", "deliveryStreamArn": ARN, "region": "eu-west-1",
        "records": [record],
    }  # fmt: skip


def active_mq(message_id: str) -> dict[str, Any]:
    return {
        "eventSource": "aws:mq", "eventSourceArn": ARN,
        "messages": [{"messageID": f"ID:{message_id}", "data": "e30="}],
    }  # fmt: skip


def rabbit_mq(message_id: str) -> dict[str, Any]:
    message = {"basicProperties": {"messageId": message_id}, "redelivered": False, "data": "e30="}
    return {
        "eventSource": "aws:rmq", "eventSourceArn": ARN,
        "rmqMessagesByQueue": {"jobs::/": [message]},
    }  # fmt: skip


def document_db(token: str) -> dict[str, Any]:
    change = {"event": {"_id": {"_data": token}, "operationType": "insert"}}
    return {"eventSource": "aws:docdb", "eventSourceArn": ARN, "events": [change]}


EVENTS: dict[str, tuple[Callable[[str], Any], str | None, str | None]] = {
    # An event by what names it, and Powertools' data class and parser model of it.
    "SQS": (lambda n: {"Records": [sqs_record(n)]}, "SQSEvent", "SqsModel"),
    "Kinesis": (
        lambda n: {"Records": [kinesis_record(n)]}, "KinesisStreamEvent", "KinesisDataStreamModel"
    ),
    "DynamoDB": (
        lambda n: {"Records": [dynamodb_record(n)]}, "DynamoDBStreamEvent", "DynamoDBStreamModel"
    ),
    "SNS": (sns, "SNSEvent", "SnsModel"),
    "S3": (s3, "S3Event", "S3Model"),
    "Kafka": (lambda n: kafka(int(n)), "KafkaEvent", "KafkaMskEventModel"),
    "EventBridge": (eventbridge, "EventBridgeEvent", "EventBridgeModel"),
    "Firehose": (firehose, "KinesisFirehoseEvent", "KinesisFirehoseModel"),
    "ActiveMQ": (active_mq, "active_mq_event.ActiveMQEvent", None),
    "RabbitMQ": (rabbit_mq, "rabbit_mq_event.RabbitMQEvent", None),
    "DocumentDB": (document_db, None, None),
    "SES": (lambda n: {"Records": [{"ses": {"mail": {"messageId": n}}}]}, None, None),
    "S3 Batch": (
        lambda n: {"job": {"id": "j"}, "tasks": [{"taskId": n, "s3Key": "k"}]}, None, None
    ),
    "EventBridge Pipes": (lambda n: [sqs_record(n), sqs_record(f"{n}-2")], None, None),
}  # fmt: skip
each_event = pytest.mark.parametrize("kind", EVENTS)


@each_event
def test_an_event_that_comes_again(kind: str, ingest: Ingest, tracker: doow.Tracker) -> None:
    """Another request brings it: it counts once, and another event besides."""
    make, _, _ = EVENTS[kind]
    for request, name in enumerate(("1", "1", "2")):
        context = LambdaContext(request_id=str(request))
        invoke(tracker, lambda: tracker.track("documents"), make(name), context)
    assert counted(ingest) == {"documents": 2}


@each_event
def test_an_event_in_another_form(kind: str) -> None:
    """Powertools' data class and parser model of an event name what the dict does."""
    make, data_class, model = EVENTS[kind]
    expected = work_of(make("1"))
    assert expected is not None
    if data_class is not None:
        module, _, name = data_class.rpartition(".")
        where = import_module(f"{data_classes.__name__}.{module}") if module else data_classes
        assert work_of(getattr(where, name)(make("1"))) == expected
    if model is not None:
        from aws_lambda_powertools.utilities.parser import models

        assert work_of(getattr(models, model)(**make("1"))) == expected


def test_records_have_the_names_of_their_event() -> None:
    """One record alone, as a processor of batches passes it."""
    assert record_name(sns("7")["Records"][0]) == f"7/{ARN}"
    assert record_name(eventbridge("7")) == "7/shop/Order placed/123456789012"
    assert record_name(kafka(7)["records"]["clicks-1"][0]) == "clicks/1/7"


@pytest.mark.parametrize(
    "event",
    [
        {"id": "1"},
        {"records": [{"topic": "t", "partition": True, "offset": 1}]},
        {"records": {"t-0": "text"}},
        {"messages": [{"messageID": ""}]},
        {"tasks": [{"taskId": "1"}]},
        {"events": [{"event": {"_id": "1"}}]},
        [{"messageId": "1"}, {"body": "2"}],
        [],
    ],
)
def test_what_has_no_name(event: object) -> None:
    """A record without a name, or what only resembles one: the request counts."""
    assert work_of(event) is None


def test_the_events_of_chalice() -> None:
    """They keep the event and the context, which no other argument is."""
    kind = type("SQSEvent", (), {"__module__": "chalice.app"})
    event = kind()
    event._event_dict, event.context = {"Records": [sqs_record("m-1")]}, LambdaContext()
    assert find_identity((event,), {}) == ("metered", "records:m-1")
    assert find_deadline((event,), {}) is not None


# ── attempts ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 5), ({"on_exception": "discard"}, 5), ({"on_exception": "flush"}, 8)],
    ids=["usually", "discard", "flush"],
)
def test_an_attempt_that_fails_counts_nothing(
    options: Any, expected: int, ingest: Ingest, tracker: doow.Tracker
) -> None:
    """What it recorded differs from what the retry records: were both sent, both would count."""
    attempts = iter((3, 5))

    @tracker.tracked(idempotent=True, **options)
    def handler(event: Any, context: Any) -> None:
        pages = next(attempts)
        for page in range(pages):
            tracker.track("pages", attribution={"page": page})
        if pages == 3:
            raise RuntimeError("fails half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        handler({}, LambdaContext(request_id="same"))
    handler({}, LambdaContext(request_id="same"))
    assert counted(ingest) == {"pages": expected}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process")
@pytest.mark.parametrize("body", ["time.sleep(60)", "doow.flush(); time.sleep(60)"])
def test_an_attempt_that_is_killed_counts_nothing(
    body: str, ingest: Ingest, tmp_path: Path
) -> None:
    """Nothing is sent shortly before the deadline, and nothing written that a replay would send."""
    pytest.importorskip("awslambdaric")
    (tmp_path / "function.py").write_text(
        "import time\n"
        "import doow_serverless as doow\n\n"
        "@doow.tracked(idempotent=True)\n"
        "def handler(event, context):\n"
        "    for page in range(event['pages']):\n"
        "        doow.track('pages', attribution={'page': page})\n"
        f"    if event['slow']: {body}\n"
    )
    environ = {
        "DOOW_TRACK_API_KEY": KEY,
        "DOOW_TRACK_ENDPOINT": ingest.url,
        "DOOW_TRACK_LICENSE_ID": "lic",
    }
    with LambdaRuntime("function.handler", tmp_path, env=environ, timeout_s=1.0) as runtime:
        assert runtime.invoke({"pages": 3, "slow": True}).error is not None
        assert ingest.posts() == []
        assert list(find_records(runtime.stdout)) == []
        runtime.invoke({"pages": 5, "slow": False})
    assert counted(ingest) == {"pages": 5}


def test_a_name_is_not_changed_by_reading_it() -> None:
    """The event is the handler's."""
    for make, _, _ in EVENTS.values():
        event = make("1")
        before = copy.deepcopy(event)
        work_of(event)
        assert event == before

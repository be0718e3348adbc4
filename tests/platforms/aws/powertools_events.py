"""Events as Lambda passes them to Powertools, and what is delivered for them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.lambda_context import LambdaContext

pytest.importorskip("aws_lambda_powertools")


STREAM = "arn:aws:kinesis:eu-west-1:123456789012:stream/clicks"
TABLE = "arn:aws:dynamodb:eu-west-1:123456789012:table/jobs/stream/2026-01-01T00:00:00.000"

# ── events, as Lambda passes them ───────────────────────────────────────────────────────────────


def new_context(remaining_ms: float = 30_000, request_id: str = "req-1") -> Any:
    """A context, as Powertools wants it typed."""
    return LambdaContext(remaining_ms, request_id)


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

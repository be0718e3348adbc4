"""Messages of a log as each export tool writes them: the ways in which a log gets to replay.

A message is a line as a function wrote it, or several, without the last newline.
"""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
from typing import TYPE_CHECKING, Any

from tests.unit.frames.test_kpl import aggregated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STAMP = "2026-11-22T11:33:00.123Z"
STREAM = "2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef"


def parsed(message: str) -> Any:
    """A message that is a JSON object as an object, as collectors have it; any other as text."""
    try:
        value = json.loads(message)
    except ValueError:
        return message
    return value if isinstance(value, dict) else message


def documents(each: Callable[[str], Any]) -> Callable[[Sequence[str]], str]:
    """One document a line."""
    return lambda messages: "".join(f"{json.dumps(each(one))}\n" for one in messages)


def prefixed(prefix: str) -> Callable[[Sequence[str]], str]:
    """A prefix before each message, and none before the further lines of one."""
    return lambda messages: "".join(f"{prefix}{one}\n" for one in messages)


def prefixed_lines(prefix: str) -> Callable[[Sequence[str]], str]:
    """A prefix before each line."""
    return lambda messages: "".join(
        f"{prefix}{line}\n" for one in messages for line in one.split("\n")
    )


def subscription(messages: Sequence[str]) -> dict[str, Any]:
    """The document of a CloudWatch Logs subscription."""
    return {
        "messageType": "DATA_MESSAGE",
        "owner": "1",
        "logGroup": "/aws/lambda/api",
        "logStream": STREAM,
        "subscriptionFilters": ["all"],
        "logEvents": [{"id": "1", "timestamp": 1, "message": f"{one}\n"} for one in messages],
    }


def zipped(messages: Sequence[str]) -> bytes:
    return gzip.compress(json.dumps(subscription(messages)).encode())


def by_twos(messages: Sequence[str]) -> list[Sequence[str]]:
    return [messages[at : at + 2] for at in range(0, len(messages), 2)]


def in_base64(messages: Sequence[str]) -> str:
    return base64.b64encode(zipped(messages)).decode()


def log_events(messages: Sequence[str]) -> str:
    """``aws logs filter-log-events``."""
    events = [{"logStreamName": STREAM, "timestamp": 1, "message": f"{n}\n"} for n in messages]
    return json.dumps({"events": events, "searchedLogStreams": []}, indent=4)


def tail_json(messages: Sequence[str]) -> str:
    """``aws logs tail --format json``, which prints JSON prettily."""
    texts = [n if isinstance(parsed(n), str) else json.dumps(parsed(n), indent=4) for n in messages]
    return "".join(f"2026-11-22T11:33:00.123000+00:00 {STREAM} {text}\n" for text in texts)


def insights(messages: Sequence[str]) -> str:
    """``aws logs get-query-results``."""
    rows = [
        [{"field": "@timestamp", "value": "x"}, {"field": "@message", "value": f"{one}\n"}]
        for one in messages
    ]
    answer = {"results": rows, "statistics": {"recordsMatched": 1.0}, "status": "Complete"}
    return json.dumps(answer, indent=4)


def telemetry(messages: Sequence[str]) -> str:
    """Lambda's Telemetry API, which sorts the fields of a line that is JSON."""
    records = [{"time": STAMP, "type": "function", "record": parsed(one)} for one in messages]
    return json.dumps(records, sort_keys=True)


def query_api(messages: Sequence[str]) -> str:
    """Application Insights, answer of the query API."""
    names = {"timestamp": "datetime", "message": "string", "customDimensions": "dynamic"}
    columns = [{"name": name, "type": names[name]} for name in names]
    rows = [[STAMP, one, {"a": "b"}] for one in messages]
    return json.dumps({"tables": [{"name": "PrimaryResult", "columns": columns, "rows": rows}]})


def as_csv(time: str, header: str) -> Callable[[Sequence[str]], str]:
    """A portal's CSV."""

    def export(messages: Sequence[str]) -> str:
        file = io.StringIO()
        rows = [["2026-11-22", f"{one}\n", json.dumps({"a": "b"})] for one in messages]
        csv.writer(file).writerows([[time, header, "customDimensions"], *rows])
        return file.getvalue()

    return export


def get_records(messages: Sequence[str]) -> str:
    """``aws kinesis get-records``."""
    return kinesis(*map(zipped, by_twos(messages)))


def kinesis(*data: bytes) -> str:
    """The answer of GetRecords."""
    records = [
        {
            "SequenceNumber": "1",
            "ApproximateArrivalTimestamp": STAMP,
            "Data": base64.b64encode(each).decode(),
            "PartitionKey": "1",
        }
        for each in data
    ]
    answer = {"Records": records, "NextShardIterator": "AAAA", "MillisBehindLatest": 0}
    return json.dumps(answer, indent=4)


def received(*bodies: str, **more: Any) -> str:
    """The answer of ReceiveMessage."""
    messages = [
        {"MessageId": "1", "ReceiptHandle": "AQEB", "MD5OfBody": "0", "Body": body, **more}
        for body in bodies
    ]
    return json.dumps({"Messages": messages}, indent=4)


def dead_letter_queue(messages: Sequence[str]) -> str:
    """``aws sqs receive-message``, from the dead-letter queue of a function."""
    bodies = [json.dumps({"awslogs": {"data": in_base64(each)}}) for each in by_twos(messages)]
    return received(*bodies)


def failure_document(messages: Sequence[str]) -> dict[str, Any]:
    return {
        "version": "1.0",
        "timestamp": STAMP,
        "requestContext": {"functionArn": "arn:f", "condition": "RetriesExhausted"},
        "requestPayload": {"awslogs": {"data": in_base64(messages)}},
        "responseContext": {"statusCode": 200},
    }


def failed_by_bridge(messages: Sequence[str]) -> str:
    """A destination of failed invocations: EventBridge, in a notification, in a queue."""
    event = {
        "detail-type": "Lambda Function Invocation Result - Failure",
        "source": "lambda",
        "detail": failure_document(messages),
    }
    note = {"Type": "Notification", "TopicArn": "arn:x", "Message": json.dumps(event)}
    return received(json.dumps(note))


def azure_records(messages: Sequence[str]) -> str:
    """Diagnostic settings, in a storage account or from an Event Hub."""
    common = {"time": STAMP, "resourceId": "/SITES/APP"}
    return json.dumps(
        {
            "records": [
                {**common, "category": "FunctionAppLogs", "properties": {"message": one}}
                if at % 2
                else {
                    **common,
                    "Type": "AppTraces",
                    "Message": one,
                    "Properties": {"Category": "Host.Function.Console"},
                }
                for at, one in enumerate(messages)
            ]
        }
    )


def of_a_linux_host(message: str) -> str:
    """A record of a function app as Azure's hosts on Linux write it, with single quotes."""
    record = {"time": STAMP, "resourceId": "/SITES/APP", "category": "FunctionAppLogs"}
    properties = json.dumps({"message": message, "category": "Host.Function.Console"})
    properties = properties.replace("'", "").replace('"', "'")
    return f'{json.dumps(record)[:-1]}, "properties": {properties}}}'


def kinesis_of_fluent_bit(messages: Sequence[str]) -> str:
    """Lines that Fluent Bit has aggregated as Amazon's producer library does."""
    records = [json.dumps({"log": one, "stream": "stdout"}).encode() for one in messages]
    return kinesis(aggregated(records))


EXPORTS: dict[str, Callable[[Sequence[str]], str | bytes]] = {
    "lines": prefixed(""),
    "lines of PowerShell": lambda messages: "".join(f"{n}\r\n" for n in messages).encode("utf-16"),
    "CreateExportTask": lambda messages: gzip.compress(prefixed(f"{STAMP} ")(messages).encode()),
    "aws logs tail": prefixed(f"2026-11-22T11:33:00.123000+00:00 {STREAM} "),
    "aws logs tail --format short": prefixed("2026-11-22T11:33:00 "),
    "aws logs tail --format json": tail_json,
    "container runtime": prefixed_lines("2026-11-22T11:33:00.123456789Z stdout F "),
    "Azure's log stream": prefixed_lines("2026-11-22T11:33:00.123 [Information] "),
    "Azure's log stream, with blanks": prefixed_lines("2026-11-22T11:33:00Z   [Information]   "),
    "filter-log-events": log_events,
    "get-query-results": insights,
    "Insights' CSV": as_csv("@timestamp", "@message"),
    "Firehose over CloudWatch": lambda messages: gzip.compress(
        b"".join(map(zipped, by_twos(messages)))
    ),
    "gzip members": lambda messages: b"".join(map(zipped, by_twos(messages))),
    "Firehose, unpacked": lambda messages: "".join(
        json.dumps(subscription(each)) for each in by_twos(messages)
    ),
    "telemetry": telemetry,
    "logs of Lambda in S3": documents(
        lambda one: {"time": STAMP, "type": "function", "record": parsed(one)}
    ),
    "vercel logs --json": documents(
        lambda one: {"id": "1", "message": f"{one}\n", "source": "serverless", "domain": "a.b"}
    ),
    "vercel logs --json, a request": lambda messages: json.dumps(
        {
            "id": "1",
            "timestamp": 1,
            "level": "info",
            "message": "START",
            "source": "serverless",
            "domain": "a.b",
            "logs": [{"level": "info", "message": f"{one}\n"} for one in messages],
        }
    ),
    "vercel logs --json, earlier": documents(
        lambda one: {
            "level": "info",
            "message": f"{one}\n",
            "rowId": "1",
            "source": "serverless",
            "timestampInMs": 1,
            "domain": "a.b",
            "messageTruncated": False,
            "requestMethod": "GET",
            "requestPath": "/",
            "responseStatusCode": 200,
        }
    ),
    "Vercel's drain": lambda messages: json.dumps(
        [
            {"id": "1", "message": one, "type": "stdout", "source": "lambda", "proxy": {"a": "b"}}
            for one in messages
        ]
    ),
    "query API": query_api,
    "query API, no columns": lambda messages: json.dumps(
        {
            "tables": [
                {"name": "PrimaryResult", "rows": [[STAMP, one, {"a": "b"}] for one in messages]}
            ]
        }
    ),
    "Application Insights' CSV": as_csv("timestamp [UTC]", "message"),
    "Log Analytics' CSV, with a mark": lambda messages: as_csv(
        "TimeGenerated [Local Time]", "Message"
    )(messages).encode("utf-8-sig"),
    "diagnostic settings": azure_records,
    "Event Hub, of a host on Linux": lambda messages: "".join(
        f'{{"records": [{of_a_linux_host(one)}]}}\n' for one in messages
    ),
    "storage account, of a host on Linux": lambda messages: "".join(
        f"{of_a_linux_host(one)}\n" for one in messages
    ),
    "docker": lambda messages: documents(
        lambda line: {"log": f"{line}\n", "stream": "stdout", "time": STAMP}
    )([line for one in messages for line in one.split("\n")]),
    "Fluent Bit": documents(
        lambda one: {"date": 1.5, "log": one, "stream": "stdout", "logtag": "F", "kubernetes": {}}
    ),
    "FireLens": documents(
        lambda one: {
            "log": one,
            "container_id": "1",
            "container_name": "app",
            "source": "stdout",
            "ecs_task_arn": "a",
        }
    ),
    "Kinesis": get_records,
    "Kinesis, aggregated": kinesis_of_fluent_bit,
    "dead-letter queue": dead_letter_queue,
    "destination": lambda messages: json.dumps(failure_document(messages)),
    "destination by EventBridge and SNS": failed_by_bridge,
    "Datadog": lambda messages: json.dumps(
        {
            "data": [
                {
                    "id": "1",
                    "type": "log",
                    "attributes": {"timestamp": STAMP, "attributes": parsed(one)}
                    if isinstance(parsed(one), dict)
                    else {"timestamp": STAMP, "message": one},
                }
                for one in messages
            ]
        }
    ),
}
"""By name: from messages to the content of a file."""

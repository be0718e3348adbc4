"""Every way into the relay: lines of a log, wrapped as each platform wraps them."""

from __future__ import annotations

import hmac
import io
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

import pytest

from benchmarks.fleet.stream import Context, event_of
from doow_serverless import relay
from tests.integration.relaying import ids_at, relayed
from tests.streams import record, subscription
from tests.unit.frames.test_kpl import aggregated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SECRET = "a secret of the drain"
_LINES = 100
"""Lines that a platform exports together."""


def relayed_ids(text: str, way: str) -> list[str]:
    """Return the ids of the events that arrive if the lines of ``text`` come ``way``, sorted."""
    lines = [line for line in text.split("\n") if line]
    with pytest.MonkeyPatch.context() as patch, relayed(patch) as ingest:
        for at in range(0, len(lines), _LINES):
            WAYS[way](lines[at : at + _LINES])
        return ids_at(ingest)


def kinesis(records: list[bytes]) -> None:
    shown = [record(at, data) for at, data in enumerate(records)]
    relay.kinesis_handler({"Records": shown}, Context())


def window(records: list[bytes]) -> None:
    shown = [record(at, data) for at, data in enumerate(records)]
    relay.kinesis_handler(event_of(shown, 0.0, {}, is_final=True), Context())


def firelens(line: str) -> bytes:
    said = {"source": "stdout", "log": line, "container_name": "api", "ecs_cluster": "c"}
    return json.dumps(said).encode()


def sqs(bodies: list[str]) -> None:
    records = [{"messageId": str(at), "body": body} for at, body in enumerate(bodies)]
    relay.sqs_handler({"Records": records}, Context())


def awslogs(lines: Sequence[str]) -> dict[str, Any]:
    return {"awslogs": {"data": b64encode(subscription(lines)).decode()}}


def failure(lines: Sequence[str]) -> dict[str, Any]:
    condition = {"condition": "RetriesExhausted"}
    return {"version": "1.0", "requestContext": condition, "requestPayload": awslogs(lines)}


class EventHubEvent:
    """As `azure.functions.EventHubEvent`."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._body = json.dumps({"records": records}).encode()

    def get_body(self) -> bytes:
        return self._body


def traces(lines: Sequence[str]) -> EventHubEvent:
    return EventHubEvent([{"category": "AppTraces", "Message": line} for line in lines])


def app_logs(lines: Sequence[str], write: Callable[[dict[str, Any]], object]) -> EventHubEvent:
    said = [{"appName": "a", "message": one, "category": "Host.Function.Console"} for one in lines]
    return EventHubEvent(
        [{"category": "FunctionAppLogs", "properties": write(one)} for one in said]
    )


def by_linux(properties: dict[str, Any]) -> str:
    text = json.dumps(properties, separators=(",", ":"))
    return text.replace("'", "").replace("\n", " ").replace('"', "'")


def drain(lines: Sequence[str], *, ndjson: bool = False) -> None:
    entries = [
        {"id": str(at), "message": one, "source": "lambda", "type": "stdout", "projectId": "p"}
        for at, one in enumerate(lines)
    ]
    body = ("\n".join(map(json.dumps, entries)) if ndjson else json.dumps(entries)).encode()
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "HTTP_X_VERCEL_SIGNATURE": hmac.new(SECRET.encode(), body, "sha1").hexdigest(),
    }
    setup_testing_defaults(environ)
    list(relay.VercelDrain(SECRET)(environ, lambda *_: None))


WAYS: dict[str, Callable[[Sequence[str]], None]] = {
    "Kinesis, CloudWatch": lambda lines: kinesis([subscription(lines)]),
    "Kinesis, CloudWatch, a window": lambda lines: window([subscription(lines)]),
    "Kinesis, a line a record": lambda lines: kinesis([line.encode() for line in lines]),
    "Kinesis, FireLens": lambda lines: kinesis([firelens(line) for line in lines]),
    "Kinesis, aggregated": lambda lines: kinesis([aggregated([one.encode() for one in lines])]),
    "Kinesis, aggregated CloudWatch": lambda lines: kinesis([aggregated([subscription(lines)])]),
    "logs": lambda lines: relay.logs_handler(awslogs(lines), Context()),
    "logs, redriven": lambda lines: relay.logs_handler(failure(lines), Context()),
    "SQS": lambda lines: sqs(list(lines)),
    "SQS, dead-letter queue": lambda lines: sqs([json.dumps(awslogs(lines))]),
    "SQS, destination": lambda lines: sqs([json.dumps(failure(lines))]),
    "SQS, SNS": lambda lines: sqs(
        [json.dumps({"Type": "Notification", "Message": json.dumps(failure(lines))})]
    ),
    "Event Hub, traces": lambda lines: relay.event_hub_handler(traces(lines)),
    "Event Hub, app logs": lambda lines: relay.event_hub_handler(app_logs(lines, dict)),
    "Event Hub, app logs, text": lambda lines: relay.event_hub_handler(app_logs(lines, json.dumps)),
    "Event Hub, app logs of Linux": lambda lines: relay.event_hub_handler(
        app_logs(lines, by_linux)
    ),
    "Vercel": drain,
    "Vercel, NDJSON": lambda lines: drain(lines, ndjson=True),
}

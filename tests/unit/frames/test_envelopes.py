"""Each entry point unwraps exactly what its platform wraps, and nothing from within a text."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from base64 import b64encode
from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doow_serverless._frames import unpacking
from doow_serverless._frames.envelopes import (
    Line,
    Unread,
    from_cloudwatch,
    from_event_hub,
    from_kinesis,
    from_logs_event,
    from_sqs,
    from_vercel,
)
from doow_serverless._frames.format import MARKER
from tests.unit.frames.test_kpl import aggregated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FRAME = '{"doow_dead_letter":2,"data":"H4sI-_"}'
"""Begins like a frame: whether it is one is the reader's business."""
MARKED = "somebody wrote doow_dead_letter"


def lines(found: Iterable[Line | Unread]) -> list[str]:
    return [one.text for one in found if isinstance(one, Line)]


def marked(texts: Iterable[str]) -> list[str]:
    """The texts that may hold usage; nobody asks for the others."""
    return [text for text in texts if MARKER in text]


def split(found: Iterable[Line | Unread]) -> tuple[list[str], list[str]]:
    """The texts of lines, and the reasons of what is unread."""
    both = list(found)
    return lines(both), [one.why for one in both if isinstance(one, Unread)]


# ── how platforms wrap ──────────────────────────────────────────────────────────────────────────


def cloudwatch(messages: Iterable[Any], **event: Any) -> bytes:
    document = {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": "/aws/lambda/orders",
        "logStream": "2026/11/30/[$LATEST]abc",
        "subscriptionFilters": ["usage"],
        "logEvents": [
            {"id": f"37{n}", "timestamp": 1, "message": message, **event}
            for n, message in enumerate(messages)
        ],
    }
    return gzip.compress(json.dumps(document).encode())


CONTROL = gzip.compress(
    json.dumps({
        "messageType": "CONTROL_MESSAGE",
        "owner": "CloudwatchLogs",
        "logGroup": "",
        "logStream": "",
        "subscriptionFilters": [],
        "logEvents": [{"id": "", "timestamp": 1, "message": "CWL CONTROL MESSAGE"}],
    }).encode()
)  # fmt: skip


def kinesis(data: bytes) -> dict[str, Any]:
    return {
        "eventSource": "aws:kinesis",
        "eventID": "shardId-000000000000:495",
        "kinesis": {"sequenceNumber": "495", "data": b64encode(data).decode()},
    }


def agent(text: str, **fields: Any) -> str:
    """An object of FireLens."""
    own = {"container_id": "abc", "container_name": "/app", "source": "stdout"}
    return json.dumps({"log": text, **own, **fields})


def awslogs(*messages: str) -> dict[str, Any]:
    return {"awslogs": {"data": b64encode(cloudwatch(messages)).decode()}}


def destination(payload: object, **fields: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "timestamp": "2026-11-30T00:00:00.000Z",
        "requestContext": {"requestId": "r", "functionArn": "a", "condition": "RetriesExhausted"},
        "requestPayload": payload,
        "responseContext": {"statusCode": 200, "functionError": "Unhandled"},
        "responsePayload": {"errorType": "Undelivered"},
        **fields,
    }


def sns(document: object) -> dict[str, Any]:
    return {
        "Type": "Notification",
        "MessageId": "m",
        "TopicArn": "t",
        "Message": json.dumps(document),
        "SignatureVersion": "1",
    }


def topic(*documents: object) -> dict[str, Any]:
    """The event by which SNS invokes a function."""
    return {"Records": [{"EventSource": "aws:sns", "Sns": sns(one)} for one in documents]}


def event_bridge(document: object) -> dict[str, Any]:
    return {
        "version": "0",
        "id": "i",
        "detail-type": "Lambda Function Invocation Result - Failure",
        "source": "lambda",
        "resources": [],
        "detail": document,
    }


def sqs(body: object) -> dict[str, Any]:
    text = body if isinstance(body, str) else json.dumps(body)
    return {"messageId": "m1", "eventSource": "aws:sqs", "body": text}


CONSOLE_LOGGER = "Host.Function.Console"
CONSOLE = {"category": CONSOLE_LOGGER}
AZURE = {
    "time": "t",
    "resourceId": "/SUBSCRIPTIONS/X/SITES/ORDERS",
    "operationName": "Microsoft.Web/sites/functions/log",
}


def by_linux(properties: dict[str, Any]) -> str:
    """Properties as the Functions host on Linux writes them."""
    return json.dumps(properties).replace("'", "").replace("\n", " ").replace('"', "'")


def hub(*records: Any) -> bytes:
    return json.dumps({"records": list(records)}).encode()


def traces(text: str, **fields: Any) -> dict[str, Any]:
    return {**AZURE, "Type": "AppTraces", "Message": text, **fields}


def app_log(properties: object) -> dict[str, Any]:
    return {**AZURE, "category": "FunctionAppLogs", "properties": properties}


def bare(properties: dict[str, Any]) -> bytes:
    """An export whose properties are not even JSON."""
    return bare_record(by_linux(properties))


def bare_record(properties: str, name: str = "properties") -> bytes:
    record = json.dumps({**AZURE, "category": "FunctionAppLogs"})[:-1]
    return f'{{"records": [{record}, "{name}": {properties}}}]}}'.encode()


OTHER_LOGGER = "Function.orders.User"
INJECTED = [
    # Fields that come twice; the category within an object or array; an end, and another record.
    (f"','category':'{CONSOLE_LOGGER}','message':'{FRAME}", ""),
    (f"{FRAME}','category':'{CONSOLE_LOGGER}','eventName':{{'eventId':'", "'},'activityId':'"),
    (f"{FRAME}','category':'{CONSOLE_LOGGER}','eventName':['", "'],'activityId':'"),
    (f"{FRAME}','z':{{'q':'", "'},'x':'"),
    (f"{FRAME}'}},{{'message':'", ""),
    (f"'}}}},{{'category':'AppTraces','Message':'{FRAME}'}},{{'properties':{{'message':'", ""),
]
"""Two texts by which somebody would make a frame of a logged text, if quotes were kept."""


def by_a_host_that_keeps_quotes(message: str, error: str) -> str:
    properties = {
        "appName": "a",
        "message": message,
        "category": OTHER_LOGGER,
        "level": "Error",
        "exceptionMessage": error,
    }
    return json.dumps(properties, separators=(",", ":")).replace('"', "'")


def entry(message: object, **fields: Any) -> dict[str, Any]:
    return {
        "id": "157",
        "deploymentId": "dpl_1",
        "source": "lambda",
        "type": "stdout",
        "message": message,
        "proxy": {"userAgent": ["Mozilla"], "path": "/api"},
        **fields,
    }


def drained(*entries: Any) -> bytes:
    return json.dumps(list(entries)).encode()


# ── honest forms ────────────────────────────────────────────────────────────────────────────────

WRAPPINGS: dict[str, Callable[[list[str]], Iterable[Line | Unread]]] = {
    "CloudWatch": lambda texts: from_cloudwatch(cloudwatch(texts)),
    "CloudWatch, gzip twice": lambda texts: from_cloudwatch(gzip.compress(cloudwatch(texts))),
    "CloudWatch, members": lambda texts: from_cloudwatch(
        b"".join(cloudwatch([text]) for text in texts)
    ),
    "CloudWatch, unpacked": lambda texts: from_cloudwatch(
        b"".join(gzip.decompress(cloudwatch([text])) for text in texts)
    ),
    "logs event": lambda texts: from_logs_event(awslogs(*texts)),
    "logs event, destination": lambda texts: from_logs_event(destination(awslogs(*texts))),
    "logs event, SNS": lambda texts: from_logs_event(
        {"Records": [{"EventSource": "aws:sns", "Sns": sns(destination(awslogs(*texts)))}]}
    ),
    "logs event, EventBridge": lambda texts: from_logs_event(
        event_bridge(destination(awslogs(*texts)))
    ),
    "Kinesis, CloudWatch": lambda texts: from_kinesis(kinesis(cloudwatch(texts))),
    "Kinesis, FireLens": lambda texts: (
        one for text in texts for one in from_kinesis(kinesis(agent(text).encode()))
    ),
    "Kinesis, Fluent Bit, a line each": lambda texts: (
        from_kinesis(
            kinesis(
                "".join(f"{json.dumps({'log': t, 'stream': 'stdout'})}\n" for t in texts).encode()
            )
        )
        if texts
        else []
    ),
    "Kinesis, KPL, FireLens": lambda texts: from_kinesis(
        kinesis(aggregated([f"{agent(text)}\n".encode() for text in texts]))
    ),
    "Kinesis, KPL, CloudWatch": lambda texts: from_kinesis(
        kinesis(aggregated([cloudwatch([text]) for text in texts]))
    ),
    "SQS, dead-letter queue": lambda texts: from_sqs(sqs(awslogs(*texts))),
    "SQS, destination": lambda texts: from_sqs(sqs(destination(awslogs(*texts)))),
    "SQS, SNS": lambda texts: from_sqs(sqs(sns(destination(awslogs(*texts))))),
    "SQS, SNS, dead-letter queue": lambda texts: from_sqs(sqs(sns(awslogs(*texts)))),
    "SQS, EventBridge": lambda texts: from_sqs(sqs(event_bridge(destination(awslogs(*texts))))),
    "Event Hub, traces": lambda texts: from_event_hub(hub(*map(traces, texts))),
    "Event Hub, traces of the console": lambda texts: from_event_hub(
        hub(*(traces(text, Properties={"Category": CONSOLE_LOGGER, "a": "b"}) for text in texts))
    ),
    "Event Hub, traces, dimensions in JSON": lambda texts: from_event_hub(
        hub(*(traces(text, Properties=json.dumps({"CATEGORY": CONSOLE_LOGGER})) for text in texts))
    ),
    "Event Hub, traces, dimensions in properties": lambda texts: from_event_hub(
        hub(
            *(
                {
                    "category": "AppTraces",
                    "properties": {
                        "message": text,
                        "categoryName": CONSOLE_LOGGER,
                        "customDimensions": {"category": CONSOLE_LOGGER},
                        "Properties": None,
                    },
                }
                for text in texts
            )
        )
    ),
    "Event Hub, traces by properties": lambda texts: from_event_hub(
        hub(*({"category": "AppTraces", "properties": {"message": text}} for text in texts))
    ),
    "Event Hub, no category": lambda texts: from_event_hub(
        hub(*({"properties": {"message": text}} for text in texts))
    ),
    "Event Hub, lines": lambda texts: (
        from_event_hub(b"\r\n".join(hub(traces(text)) for text in texts)) if texts else []
    ),
    "Event Hub, own setting": lambda texts: from_event_hub(
        hub(*(app_log({"message": text, **CONSOLE}) for text in texts))
    ),
    "Event Hub, own setting, JSON": lambda texts: from_event_hub(
        hub(*(app_log(json.dumps({"message": text, **CONSOLE})) for text in texts))
    ),
    "Vercel, array": lambda texts: from_vercel(drained(*map(entry, texts))),
    "Vercel, lines": lambda texts: (
        from_vercel(
            b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(entry(text)).encode() for text in texts)
        )
        if texts
        else []
    ),
    "Vercel, one by one": lambda texts: (
        one for text in texts for one in from_vercel(json.dumps(entry(text)).encode())
    ),
}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from([FRAME, MARKED]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text()
            | st.sampled_from(["log", "message", "records", "awslogs", "requestPayload", "detail"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
"""What an application may log, frames that somebody sent among it."""
TEXTS = st.lists(
    st.text()
    | st.sampled_from([FRAME, f"\n{FRAME}\n", f"{FRAME}\n{FRAME}", MARKED, ""])
    | JSON.map(json.dumps)
    | st.text().map(lambda text: f"{text}{FRAME}")
    | st.sampled_from([
        json.dumps(awslogs(FRAME)),
        json.dumps(destination(awslogs(FRAME))),
        agent(FRAME),
        hub(traces(FRAME)).decode(),
        drained(entry(FRAME)).decode(),
        gzip.decompress(cloudwatch([FRAME])).decode(),
        b64encode(cloudwatch([FRAME])).decode(),
    ]),
    max_size=4,
)  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
@given(texts=TEXTS)
@example(texts=[FRAME, MARKED])
@example(texts=[f"it's {FRAME}", '"', "\\'", "', 'message': '"])
def test_texts_come_out_as_they_went_in(wrapping: str, texts: list[str]) -> None:
    """Whatever an application logs comes out whole, in order, and nothing comes from within it."""
    found, unread = split(WRAPPINGS[wrapping](texts))
    assert (marked(found), unread) == (marked(texts), [])


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_input_without_the_marker_yields_nothing(
    wrapping: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not even parsed, but for the JSON that packs a message of CloudWatch."""
    texts = ["GET /", json.dumps({"a": {"b": "it's"}}), ""]
    parsed: list[str] = []
    original = unpacking._DECODER.raw_decode

    def raw_decode(text: str, at: int) -> tuple[Any, int]:
        parsed.append(text)
        found: tuple[Any, int] = original(text, at)
        return found

    monkeypatch.setattr(unpacking._DECODER, "raw_decode", raw_decode)
    assert split(WRAPPINGS[wrapping](texts)) == ([], [])
    assert [one for text in texts for one in from_sqs(sqs(json.dumps({"GET": text})))] == []
    assert [text for text in parsed if "GET" in text] == []


@given(texts=TEXTS)
@example(texts=[f"it's {FRAME}", '"', "\\'", "', 'message': '"])
@pytest.mark.parametrize("is_bare", [False, True])
def test_texts_of_linux_hosts_lose_single_quotes_alone(is_bare: bool, texts: list[str]) -> None:
    """Properties in single quotes are restored, except the quotes that the host dropped."""
    found: list[str] = []
    for text in texts:
        properties = {"appName": "a", "message": text, **CONSOLE, "levelId": 2}
        body = bare(properties) if is_bare else hub(app_log(by_linux(properties)))
        texts_found, unread = split(from_event_hub(body))
        assert unread == []
        found += texts_found
    assert found == [text.replace("'", "") for text in marked(texts)]


@given(text=st.text(), body=JSON.map(json.dumps) | st.sampled_from([FRAME, MARKED]))
@example(text="', 'message': '", body=FRAME)
def test_bare_properties_change_no_other_record(text: str, body: str) -> None:
    """Beside a record whose properties stand in single quotes, other records stay as they are."""
    other = f"{{'{text}'}}"
    beside = json.dumps(traces(other)).encode()
    records = bare({"message": body, **CONSOLE}).removeprefix(b'{"records": [').removesuffix(b"]}")
    exported = b'{"records": [' + beside + b"," + records + b"," + beside + b"]}"
    expected = [other, body.replace("'", ""), other] if MARKER in text + body else []
    assert split(from_event_hub(exported)) == (expected, [])


ENVELOPES = (agent(FRAME), json.dumps(awslogs(FRAME)), json.dumps(destination(awslogs(FRAME))))


@given(text=TEXTS.flatmap(lambda texts: st.sampled_from([*texts, "plain"])))
def test_bare_lines_come_out_as_they_are(text: str) -> None:
    """A line of Kinesis or SQS is one text, unless it has the exact form of an envelope."""
    if text in ENVELOPES or text.startswith("H4sI"):
        return
    assert split(from_kinesis(kinesis(text.encode()))) == (marked([text]), [])
    assert split(from_kinesis(kinesis(aggregated([text.encode()])))) == (marked([text]), [])
    assert split(from_sqs(sqs(text))) == (marked([text]), [])


def test_a_control_message_holds_nothing() -> None:
    """The message by which CloudWatch tries a destination is left out."""
    assert list(from_cloudwatch(CONTROL)) == []
    assert list(from_kinesis(kinesis(CONTROL))) == []


# ── origins ─────────────────────────────────────────────────────────────────────────────────────

LOG = "event 370 of log stream 2026/11/30/[$LATEST]abc of log group /aws/lambda/orders"


@pytest.mark.parametrize(
    ("found", "origin"),
    [
        (from_cloudwatch(cloudwatch([FRAME])), LOG),
        (from_logs_event(awslogs(FRAME)), LOG),
        (from_sqs(sqs(destination(awslogs(FRAME)))), LOG),
        (from_kinesis(kinesis(FRAME.encode())), "Kinesis record shardId-000000000000:495"),
        (
            from_kinesis(kinesis(aggregated([FRAME.encode()]))),
            "user record 1 of Kinesis record shardId-000000000000:495",
        ),
        (from_sqs(sqs(FRAME)), "SQS message m1"),
        (
            from_event_hub(hub(traces(FRAME))),
            "record 1 of the Event Hub's event, AppTraces of /SUBSCRIPTIONS/X/SITES/ORDERS",
        ),
        (
            from_event_hub(b"\n" + hub(app_log({"message": FRAME}))),
            "record 1 of the Event Hub's event, FunctionAppLogs of /SUBSCRIPTIONS/X/SITES/ORDERS",
        ),
        (from_vercel(drained(entry(FRAME))), "log entry 157 of dpl_1"),
    ],
)
def test_where_a_line_stood(found: Iterable[Line | Unread], origin: str) -> None:
    """Each line says where it stood, in words for an operator."""
    assert list(found) == [Line(FRAME, origin)]


def test_origins_are_safe_to_print() -> None:
    """Names from the input are short, on one line, and never look like a credential."""
    key = "dk_" + "a1" * 32
    message = {**sqs(FRAME), "messageId": "a\n\x1b[31m" + "b" * 500}
    assert [one.origin for one in from_sqs(message)] == ["SQS message a  [31m" + "b" * 193]
    assert [one.origin for one in from_sqs({**message, "messageId": key})] == ["SQS message …"]
    assert [one.origin for one in from_sqs({**message, "messageId": 7})] == ["SQS message ?"]


LONG = "x" * 5_000


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (
            from_cloudwatch(
                gzip.compress(
                    json.dumps({
                        "messageType": "DATA_MESSAGE",
                        "logGroup": LONG,
                        "logStream": LONG,
                        "logEvents": [{"message": 1, "id": LONG + FRAME}],
                    }).encode()
                )
            ),
            "is a log event without a message",
        ),
        (
            from_sqs({
                "messageId": LONG,
                "body": json.dumps({
                    "KinesisBatchInfo": dict.fromkeys(
                        ("shardId", "streamArn", "startSequenceNumber", "endSequenceNumber"), LONG
                    )
                }),
            }),
            "names records that Lambda gave up: read them from the stream",
        ),
        (
            from_event_hub(hub({"category": LONG, "resourceId": LONG, "a": FRAME})),
            "holds the marker, and is no line that a function wrote",
        ),
        (
            from_event_hub(hub({**traces(FRAME, CategoryName=LONG), "resourceId": LONG})),
            "holds the marker, and was not printed by a function",
        ),
        (
            from_vercel(drained(entry(None, id=LONG, deploymentId=LONG, **{LONG: FRAME}))),
            "holds the marker in x",
        ),
    ],
)  # fmt: skip
def test_long_names_leave_room_for_the_reason(found: Iterable[Line | Unread], reason: str) -> None:
    """The reason comes before names of the input, and a report, of 1,000 characters, shows it."""
    (one,) = found
    assert isinstance(one, Unread)
    assert one.why.startswith(reason)
    assert len(one.origin) + len(reason) < 600


# ── forged and broken forms ─────────────────────────────────────────────────────────────────────

STREAM = "arn:aws:kinesis:eu-west-1:1:stream/usage"
GAVE_UP = (
    "names records that Lambda gave up: read them from the stream while it keeps them, and give "
    "them to `doow-serverless replay`:"
)
NOT_A_FUNCTION = "holds the marker, and is no line that a function wrote"


def elsewhere(field: str) -> str:
    return f"holds the marker in {field}, which is not the text that a function wrote"


ASIDE: dict[str, tuple[Iterable[Line | Unread], list[str], list[str]]] = {
    "CloudWatch: extractedFields": (
        from_cloudwatch(cloudwatch(["GET /"], extractedFields={"agent": FRAME})),
        ["GET /"],
        [elsewhere("extractedFields.agent")],
    ),
    "CloudWatch: extractedFields that repeat the line": (
        from_cloudwatch(cloudwatch([f"GET / {FRAME}"], extractedFields={"agent": FRAME})),
        [f"GET / {FRAME}"],
        [],
    ),
    "CloudWatch: a message that is no text": (
        from_cloudwatch(cloudwatch([{"a": FRAME}, {"a": "b"}])),
        [],
        ["is a log event without a message"],
    ),
    "CloudWatch: another document": (
        from_cloudwatch(json.dumps({"logEvents": [{"message": FRAME}]}).encode()),
        [],
        ["is no message of CloudWatch Logs"],
    ),
    "CloudWatch: behind another document": (
        from_cloudwatch(b"{}" + gzip.decompress(cloudwatch([FRAME]))),
        [],
        ["is no message of CloudWatch Logs"],
    ),
    "CloudWatch: without events": (
        from_cloudwatch(json.dumps({"messageType": "DATA_MESSAGE", "logEvents": MARKED}).encode()),
        [],
        ["is a message of CloudWatch Logs without events"],
    ),
    "CloudWatch: another document without the marker": (from_cloudwatch(b"{}"), [], []),
    "CloudWatch: cut text": (
        from_cloudwatch(gzip.decompress(cloudwatch([FRAME]))[:-1]),
        [],
        ["is no message of CloudWatch Logs: it is no valid JSON"],
    ),
    "CloudWatch: cut gzip": (
        from_cloudwatch(cloudwatch([FRAME])[:-1]),
        [],
        ["is gzip that is cut off"],
    ),
    "CloudWatch: gzip in base64": (
        from_cloudwatch(cloudwatch([b64encode(cloudwatch([FRAME])).decode()])),
        [],
        [],
    ),
    "CloudWatch: gzip in base64 beside a frame": (
        from_cloudwatch(cloudwatch([b64encode(cloudwatch([FRAME])).decode(), FRAME])),
        [b64encode(cloudwatch([FRAME])).decode(), FRAME],
        [],
    ),
    "CloudWatch: too many values": (
        from_cloudwatch(
            gzip.compress(f'{{"messageType":"DATA_MESSAGE","logEvents":[{"0," * 600_000}'.encode())
        ),
        [],
        [],
    ),
    "CloudWatch: too many values and the marker": (
        from_cloudwatch(gzip.compress(FRAME.encode() + b"[" + b"0," * 600_000)),
        [],
        ["is JSON of too many values"],
    ),
    "logs event: no base64": (
        from_logs_event({"awslogs": {"data": "H4sI!"}}),
        [],
        ["holds no valid base64"],
    ),
    "logs event: no gzip": (
        from_logs_event({"awslogs": {"data": b64encode(FRAME.encode()).decode()}}),
        [],
        ["is no event of CloudWatch Logs"],
    ),
    "logs event: another event": (
        chain(
            from_logs_event({"Records": [{"s3": {}}]}),
            from_logs_event({"Records": []}),
            from_logs_event({"Records": [{"EventSource": "a", "Sns": sns(awslogs(FRAME))}]}),
        ),
        [],
        ["is no event of CloudWatch Logs"] * 3,
    ),
    "Kinesis: log of the application's own": (
        from_kinesis(kinesis(json.dumps({"log": FRAME, "level": "INFO"}).encode())),
        [json.dumps({"log": FRAME, "level": "INFO"})],
        [],
    ),
    "Kinesis: log and a stream of the application's own": (
        from_kinesis(kinesis(agent(FRAME, level="INFO").encode())),
        [agent(FRAME, level="INFO")],
        [],
    ),
    "Kinesis: log without a stream": (
        from_kinesis(kinesis(json.dumps({"log": FRAME}).encode())),
        [json.dumps({"log": FRAME})],
        [],
    ),
    "Kinesis: log with another source": (
        from_kinesis(kinesis(json.dumps({"log": FRAME, "source": "web"}).encode())),
        [json.dumps({"log": FRAME, "source": "web"})],
        [],
    ),
    "Kinesis: log that is no text": (
        from_kinesis(kinesis(json.dumps({"log": {"a": FRAME}, "stream": "stdout"}).encode())),
        [json.dumps({"log": {"a": FRAME}, "stream": "stdout"})],
        [],
    ),
    "Kinesis: an agent's object among other lines": (
        from_kinesis(kinesis(f"{agent(FRAME)}\nGET /".encode())),
        [f"{agent(FRAME)}\nGET /"],
        [],
    ),
    "Kinesis: another field of an agent's": (
        from_kinesis(kinesis(agent("GET /", kubernetes={"labels": {"a": FRAME}}).encode())),
        ["GET /"],
        [elsewhere("kubernetes.labels.a")],
    ),
    "Kinesis: CloudWatch's document as a line": (
        from_kinesis(kinesis(gzip.decompress(cloudwatch([FRAME])))),
        [gzip.decompress(cloudwatch([FRAME])).decode()],
        [],
    ),
    "Kinesis: gzip of a line": (
        from_kinesis(kinesis(gzip.compress(FRAME.encode()))),
        [],
        ["is no message of CloudWatch Logs"],
    ),
    "Kinesis: gzip in base64": (
        from_kinesis(kinesis(b64encode(gzip.compress(FRAME.encode())))),
        [],
        ["is gzip in base64, which Kinesis does not write"],
    ),
    "Kinesis: other gzip in base64": (
        from_kinesis(kinesis(b"H4sIno")),
        [],
        [],
    ),
    "Kinesis: gzip in base64, the marker behind 64 kB": (
        from_kinesis(kinesis(b64encode(gzip.compress(b"a" * 65_536 + FRAME.encode())))),
        [],
        [],
    ),
    "Kinesis: text that begins like gzip in base64": (
        from_kinesis(kinesis(b"H4sI " + FRAME.encode())),
        [f"H4sI {FRAME}"],
        [],
    ),
    "Kinesis: too many values": (
        from_kinesis(kinesis(agent(FRAME).encode() + b"{}," * 400_000)),
        [],
        ["is JSON of too many values"],
    ),
    "Kinesis: pieces of lines": (
        from_kinesis(
            kinesis(
                "\n".join([
                    agent(FRAME, partial_message="true", partial_id="x", partial_ordinal="1"),
                    agent(FRAME, partial_last="true"),
                    agent(f"{FRAME} ", partial_last="false"),
                    agent("a", partial_id="x"),
                    agent(FRAME, logtag="P"),
                    agent(FRAME, _p="P"),
                    agent(FRAME, _p=None),
                    agent(FRAME, logtag="F", _p="F"),
                ]).encode()
            )
        ),
        [FRAME],
        ["holds the marker in a piece of a line"] * 6,
    ),
    "Kinesis: zstd": (
        from_kinesis(kinesis(b"\x28\xb5\x2f\xfd\x00")),
        [],
        ["is compressed with zstd: switch that off in its producer"],
    ),
    "Kinesis: a wrong checksum": (
        from_kinesis(kinesis(aggregated([FRAME.encode()])[:-1] + b"\x00")),
        [],
        ["is a KPL aggregated record whose checksum is wrong"],
    ),
    "Kinesis: no data": (from_kinesis({"kinesis": {}}), [], ["holds no base64"]),
    "Kinesis: no record": (from_kinesis({}), [], ["holds no data"]),
    "SQS: a comment": (
        from_sqs(sqs({"detail": {"comment": FRAME}})),
        [json.dumps({"detail": {"comment": FRAME}})],
        [],
    ),
    "SQS: a text in a document": (
        from_sqs(sqs(destination(FRAME))),
        [json.dumps(destination(FRAME))],
        [],
    ),
    "SQS: a document with a field of its own": (
        from_sqs(sqs({**destination(awslogs(FRAME)), "comment": FRAME})),
        [json.dumps({**destination(awslogs(FRAME)), "comment": FRAME})],
        [],
    ),
    "SQS: an event of another kind": (
        from_sqs(sqs({**awslogs(FRAME), "comment": FRAME})),
        [json.dumps({**awslogs(FRAME), "comment": FRAME})],
        [],
    ),
    "SQS: a text through SNS": (
        from_sqs(sqs({"Type": "Notification", "Message": FRAME})),
        [json.dumps({"Type": "Notification", "Message": FRAME})],
        [],
    ),
    "SQS: EventBridge's record of a success": (
        from_sqs(sqs({**event_bridge(destination(awslogs(FRAME))), "detail-type": "Success"})),
        [],
        [],
    ),
    "SQS: events of a queue that an application reads": (
        chain(
            from_sqs(sqs({"Records": [sqs(FRAME)]})),
            from_sqs(sqs(destination({"Records": [sqs(FRAME)]}))),
            from_sqs(sqs(sns({"Records": [sqs(FRAME)]}))),
            from_logs_event({"Records": [sqs(FRAME)]}),
            from_logs_event(destination({"Records": [sqs(FRAME)]})),
        ),
        [
            json.dumps({"Records": [sqs(FRAME)]}),
            json.dumps(destination({"Records": [sqs(FRAME)]})),
            json.dumps(sns({"Records": [sqs(FRAME)]})),
        ],
        ["is no event of CloudWatch Logs"] * 2,
    ),
    "SQS: events of a stream": (
        chain(
            from_sqs(sqs({"Records": [kinesis(FRAME.encode())]})),
            from_sqs(sqs(destination({"Records": [kinesis(cloudwatch([FRAME]))]}))),
            from_logs_event(destination({"Records": [kinesis(cloudwatch([FRAME]))]})),
        ),
        [],
        ["is no event of CloudWatch Logs"],
    ),
    "SQS: events of a topic": (
        chain(
            from_sqs(sqs(topic(destination(awslogs(FRAME))))),
            from_sqs(sqs(destination(topic(FRAME, awslogs(FRAME))))),
            from_sqs(sqs(topic({"awslogs": FRAME}))),
            from_logs_event(topic(FRAME)),
        ),
        [json.dumps(topic({"awslogs": FRAME}))],
        ["is an event of SNS, and no document that Lambda puts there"] * 2
        + ["is no event of CloudWatch Logs"],
    ),
    "SQS: the marker in an error": (
        from_sqs(sqs(destination(awslogs("a"), responsePayload={"errorMessage": MARKED}))),
        [],
        [elsewhere("responsePayload.errorMessage")],
    ),
    "SQS: an event too large for its record": (
        from_sqs(sqs({"version": "1.0", "requestContext": {"condition": "RetriesExhausted"}})),
        [],
        ["is Lambda's record of a failed invocation without its event, which was too large"],
    ),
    "SQS: a Kinesis batch with its records": (
        from_sqs(
            sqs({
                "KinesisBatchInfo": {"shardId": "s", "streamArn": "a"},
                "payload": json.dumps({"Records": [kinesis(cloudwatch([FRAME]))]}),
            })
        ),
        [],
        [f"{GAVE_UP} shard s of a, from ? to ?"],
    ),
    "SQS: a Kinesis batch": (
        from_sqs(
            sqs({
                "version": "1.0",
                "KinesisBatchInfo": {
                    "shardId": "shardId-0",
                    "startSequenceNumber": "495",
                    "endSequenceNumber": "497",
                    "streamArn": STREAM,
                },
            })
        ),
        [],
        [f"{GAVE_UP} shard shardId-0 of {STREAM}, from 495 to 497"],
    ),
    "SQS: gzip in base64": (
        from_sqs(sqs(b64encode(gzip.compress(cloudwatch([FRAME]))).decode())),
        [],
        ["is gzip in base64, which SQS does not write"],
    ),
    "SQS: no body": (from_sqs({"messageId": "m1"}), [], ["has no body"]),
    "Event Hub: a logger": (
        from_event_hub(
            hub(
                traces(FRAME, Properties={"Category": OTHER_LOGGER}),
                traces(FRAME, properties={"category": OTHER_LOGGER}),
                app_log({"message": FRAME, "category": OTHER_LOGGER}),
                app_log(by_linux({"message": FRAME, "category": OTHER_LOGGER})),
                traces("a", Properties={"Category": OTHER_LOGGER}),
            )
        ),
        [],
        [
            "holds the marker, and was not printed by a function by logger Function.orders.User"
        ] * 4,
    ),
    "Event Hub: other categories": (
        from_event_hub(
            hub(
                {"category": "AppRequests", "properties": {"message": FRAME}},
                {"Type": "AppExceptions", "Message": FRAME},
                {"Type": "AppRequests", "Properties": {"ua": FRAME}},
                {"Type": "AppRequests", "Properties": {"ua": "a"}},
            )
        ),
        [],
        [NOT_A_FUNCTION] * 3,
    ),
    "Event Hub: other fields": (
        from_event_hub(
            hub(
                app_log({"message": "a", "exceptionMessage": FRAME}),
                traces("b", Properties={"Category": CONSOLE_LOGGER, "ua": FRAME}),
                traces("c", properties={"message": FRAME}),
            )
        ),
        ["a", "b", "c"],
        [
            elsewhere("properties.exceptionMessage"),
            elsewhere("Properties.ua"),
            elsewhere("properties.message"),
        ],
    ),
    "Event Hub: another logger in the dimensions": (
        from_event_hub(
            hub(
                traces(FRAME, Properties={"CategoryName": OTHER_LOGGER}),
                traces(FRAME, Properties={"Category": CONSOLE_LOGGER, "category": OTHER_LOGGER}),
                traces(FRAME, Properties=json.dumps({"Category": OTHER_LOGGER})),
                traces(FRAME, customDimensions={"CATEGORY": OTHER_LOGGER}),
                traces(FRAME, CategoryName=OTHER_LOGGER),
                traces(FRAME, properties={"categoryName": OTHER_LOGGER}),
                traces(FRAME, properties={"customDimensions": {"Category": OTHER_LOGGER}}),
                traces(FRAME, properties={"Properties": {"Category": OTHER_LOGGER}}),
                traces("a", properties={"Properties": {"Category": OTHER_LOGGER}}),
            )
        ),
        [],
        ["holds the marker, and was not printed by a function by logger Function.orders.User"] * 8,
    ),
    "Event Hub: no logger in the dimensions": (
        from_event_hub(
            hub(
                traces(FRAME, Properties={"code.filepath": "app.py", "code.lineno": "7"}),
                traces(FRAME, Properties={}),
                traces(FRAME, Properties={"Category": None}),
                traces(FRAME, Properties=json.dumps({"Category": OTHER_LOGGER}).replace('"', "'")),
                traces(FRAME, Properties=""),
                traces(FRAME, Properties=[CONSOLE_LOGGER]),
                traces(FRAME, properties={"customDimensions": {"ua": "Mozilla"}}),
                app_log({"message": FRAME, **CONSOLE, "customDimensions": "{"}),
            )
        ),
        [],
        ["holds the marker, and was not printed by a function by logger ?"] * 8,
    ),
    "Event Hub: no message": (
        from_event_hub(
            hub({"category": "FunctionAppLogs", "text": FRAME}, app_log(FRAME), FRAME, 1)
        ),
        [],
        ["holds the marker, and was not printed by a function"] * 2 + ["is no record of a log"],
    ),
    "Event Hub: a host that keeps single quotes": (
        from_event_hub(hub(*(app_log(by_a_host_that_keeps_quotes(*two)) for two in INJECTED))),
        [],
        ["holds the marker, and was not printed by a function"] * len(INJECTED),
    ),
    "Event Hub: a host that keeps single quotes, bare": (
        from_event_hub(
            b"\n".join(bare_record(by_a_host_that_keeps_quotes(*two)) for two in INJECTED)
        ),
        [],
        ["is no valid JSON"] * len(INJECTED),
    ),
    "Event Hub: a bare object that is not called properties": (
        from_event_hub(bare_record(by_linux({"message": FRAME, **CONSOLE}), "dimensions")),
        [],
        ["is no valid JSON"],
    ),
    "Event Hub: properties that no host writes": (
        from_event_hub(
            hub(
                app_log(f"{{'message': \"{MARKED}\"}}"),
                app_log(by_linux({"message": MARKED, **CONSOLE}) + "{}"),
                app_log(f"{{'message': '{MARKED}"),
                app_log(by_linux({"message": MARKED})),
                app_log(by_linux({"message": MARKED, **CONSOLE, "ua": "a"})),
                app_log(by_linux({"message": MARKED, **CONSOLE, "level": {}})),
                app_log(by_linux({"message": MARKED, **CONSOLE, "level": []})),
            )
        ),
        [],
        ["holds the marker, and was not printed by a function"] * 7,
    ),
    "Event Hub: two exports on a line": (
        from_event_hub(bare({"message": MARKED, **CONSOLE}) * 2),
        [],
        ["is JSON followed by something else"],
    ),
    "Event Hub: no export": (
        from_event_hub(json.dumps([{"message": FRAME}]).encode()),
        [],
        ["is no export of a diagnostic setting"],
    ),
    "Event Hub: broken lines": (
        from_event_hub(
            b"\n".join([hub(traces("a")), hub(traces(FRAME))[:-1], b"{", hub(traces("b"))])
        ),
        ["a", "b"],
        ["is no valid JSON"],
    ),
    "Event Hub: broken in single quotes": (
        from_event_hub(b"{'a': " + FRAME.encode()),
        [],
        ["is no valid JSON"],
    ),
    "Event Hub: gzip": (
        from_event_hub(gzip.compress(hub(traces(FRAME)))),
        [],
        ["is gzip, which its platform does not write"],
    ),
    "Event Hub: gzip without the marker": (from_event_hub(gzip.compress(hub(traces("a")))), [], []),
    "Event Hub: nested too deeply": (
        from_event_hub(b"[" * 100_000 + FRAME.encode()),
        [],
        ["is JSON that is nested too deeply"],
    ),
    "Vercel: what a visitor sent": (
        from_vercel(
            drained(
                entry("START", proxy={"userAgent": [FRAME]}),
                entry("a", proxy={"referer": FRAME}),
                entry(FRAME, path="/api?" + FRAME),
                entry(None, proxy={"path": FRAME}),
            )
        ),
        ["START", "a", FRAME],
        [
            elsewhere("proxy.userAgent"),
            elsewhere("proxy.referer"),
            elsewhere("path"),
            elsewhere("proxy.path"),
        ],
    ),
    "Vercel: other sources and types": (
        from_vercel(
            drained(
                entry(FRAME, source="edge"),
                entry(FRAME, source="build"),
                entry(FRAME, type="middleware"),
                entry("a", source="static"),
            )
        ),
        [],
        [NOT_A_FUNCTION] * 3,
    ),
    "Vercel: no entries": (from_vercel(drained(FRAME, 1)), [], ["is no entry of a log drain"]),
    "Vercel: a message that is no text": (
        from_vercel(drained(entry({"a": FRAME}))),
        [],
        [elsewhere("message.a")],
    ),
    "Vercel: without a type": (
        from_vercel(drained({"source": "lambda", "message": FRAME})),
        [FRAME],
        [],
    ),
    "Vercel: single quotes": (
        from_vercel(("{'source': 'lambda', 'message': '" + MARKED + "'}").encode()),
        [],
        ["is no valid JSON"],
    ),
    "Vercel: the marker as a name": (
        from_vercel(drained(entry("a", doow_dead_letter=2))),
        ["a"],
        [elsewhere("the name of a field")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ASIDE)
def test_what_stands_elsewhere(case: str) -> None:
    """Text outside of the one field is no line; if it holds the marker, it is reported."""
    found, texts, reasons = ASIDE[case]
    assert split(found) == (texts, reasons)


def test_documents_within_documents() -> None:
    """Eight documents around an event are unwrapped, a ninth is somebody's text."""
    document = awslogs(FRAME)
    for _ in range(8):
        document = destination(document)
    assert split(from_sqs(sqs(document))) == ([FRAME], [])
    document = destination(document)
    assert split(from_sqs(sqs(document))) == ([], [])
    document["responsePayload"] = FRAME
    assert split(from_sqs(sqs(document))) == ([json.dumps(document)], [])


def test_input_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Input above the limit is reported, whatever it holds."""
    monkeypatch.setattr(unpacking, "MAX_TEXT", 1024 * 1024)
    big = b"a" * (1024 * 1024 + 1)
    assert split(from_vercel(big)) == ([], ["has more than 1 MB"])
    assert split(from_event_hub(gzip.compress(big))) == ([], ["unpacks to more than 1 MB"])
    assert split(from_cloudwatch(gzip.compress(big))) == ([], ["unpacks to more than 1 MB"])
    assert split(from_kinesis(kinesis(gzip.compress(big)))) == ([], ["unpacks to more than 1 MB"])


BOMB = 64 * 1024 * 1024
ASTRAL = "\U0001f600".encode() + MARKED.encode() + b"a" * (unpacking.MAX_TEXT - 200)
"""As long as may be; one character makes each of them take four bytes."""


def packed(data: bytes, times: int = 1) -> bytes:
    for _ in range(times):
        data = gzip.compress(data)
    return data


def message(events: bytes) -> bytes:
    """A message of CloudWatch that nobody but an attacker would write."""
    return packed(b'{"messageType":"DATA_MESSAGE","logEvents":[' + events + b"]}")


def line_of(values: bytes) -> bytes:
    return agent(FRAME).encode()[:-1] + b',"az":[' + values + b"0]}"


HOSTILE: dict[str, Callable[[], bytes]] = {
    "base64 of gzip of gzip": lambda: b64encode(packed(b"a" * BOMB, 2)),
    "base64 of gzip, astral": lambda: b64encode(packed(ASTRAL)),
    "gzip of gzip": lambda: packed(b"a" * BOMB, 2),
    "gzip, astral, no marker": lambda: packed(ASTRAL.replace(MARKER.encode(), b"")),
    "a message, astral": lambda: message(b'{"message":"' + ASTRAL + b'"}'),
    "a message of objects": lambda: message(b'{"":0},' * 120_000 + b'"' + ASTRAL[:6_000_000]),
    "a message of too many objects": lambda: message(b'{"":0},' * 1_100_000 + FRAME.encode()),
    "a message of too many strings": lambda: message(b'"ab",' * 1_600_000 + FRAME.encode()),
    "a line of objects": lambda: line_of(b'{"":0},' * 140_000),
    "aggregated records": lambda: aggregated([packed(ASTRAL)] * 20),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_records_take_little_memory(case: str) -> None:
    """A record of at most 1 MB takes less than 200 MB, whatever it unpacks to."""
    data = HOSTILE[case]()
    assert len(data) <= 1024 * 1024
    record = kinesis(data)
    tracemalloc.start()
    try:
        for _ in from_kinesis(record):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200 * 1024 * 1024


@given(
    data=st.binary()
    | st.binary().map(lambda data: b"\x1f\x8b\x08" + data)
    | st.binary().map(gzip.compress)
)
@example(data=b"[" * 100_000)
@example(data=b"{'" * 1_000)
def test_no_bytes_raise_anything(data: bytes) -> None:
    """Any bytes whatever are unwrapped, or reported, or passed over."""
    for found in (
        from_cloudwatch(data),
        from_event_hub(data),
        from_vercel(data),
        from_kinesis(kinesis(data)),
        from_kinesis(kinesis(b"\xf3\x89\x9a\xc2" + data)),
        from_sqs(sqs(data.decode(errors="replace"))),
        from_logs_event({"awslogs": {"data": b64encode(data).decode()}}),
    ):
        assert all(isinstance(one, (Line, Unread)) for one in found)


@given(value=JSON)
def test_no_json_raises_anything(value: Any) -> None:
    """Any JSON in the place of an envelope or its parts is unwrapped, reported, or passed over."""
    body = json.dumps(value).encode()
    for found in (
        from_cloudwatch(body),
        from_cloudwatch(json.dumps({"messageType": value, "logEvents": [value, FRAME]}).encode()),
        from_cloudwatch(
            json.dumps(
                {
                    "messageType": "DATA_MESSAGE",
                    "logEvents": [value, {"message": value}, FRAME],
                }
            ).encode()
        ),
        from_event_hub(body),
        from_event_hub(
            hub(value, app_log(value), traces(FRAME, Properties=value), {"category": value})
        ),
        from_vercel(drained(value, entry(value, type=value), FRAME)),
        from_kinesis(value),
        from_kinesis({"kinesis": value, "eventID": value}),
        from_kinesis({"kinesis": {"data": value}}),
        from_kinesis(kinesis(body)),
        from_sqs(value),
        from_sqs(sqs(body.decode())),
        from_sqs(sqs(destination(value))),
        from_sqs(sqs({"KinesisBatchInfo": value, "payload": value})),
        from_sqs(sqs(destination({"Records": [value, {"EventSource": "aws:sns", "Sns": value}]}))),
        from_logs_event({"Records": [{"EventSource": "aws:sns", "Sns": value}]}),
        from_logs_event(value),
        from_logs_event({"awslogs": value}),
        from_logs_event({"awslogs": {"data": value}}),
    ):
        assert all(isinstance(one, (Line, Unread)) for one in found)

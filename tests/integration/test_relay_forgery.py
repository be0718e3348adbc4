"""Usage is what a function recorded, whatever else its application logs: every way into the relay.

Over real HTTP to a real ledger. Without a log key only a whole line of one's own counts; with one,
nothing but what a holder of the key has written.
"""

from __future__ import annotations

import hmac
import io
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any
from wsgiref.util import setup_testing_defaults

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from benchmarks.fleet.stream import Context, event_of
from doow_serverless import relay
from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._frames.reader import read_frames
from doow_serverless._recording.ids import new_id
from doow_serverless.relay import _relay
from tests.batches import batch
from tests.integration.relaying import ids_at, ids_of, relayed
from tests.streams import record, subscription
from tests.unit.frames.test_kpl import aggregated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from doow_serverless._sealing import Batch
    from doow_serverless.local import Ingest

KEY = "a log key of thirty-two characters"
SECRET = "a secret of the drain"


@pytest.fixture
def ingest(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ingest]:
    with relayed(monkeypatch) as ingest:
        yield ingest


# ── every way in ────────────────────────────────────────────────────────────────────────────────


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


# ── what an application logs ────────────────────────────────────────────────────────────────────


def merged(frame: str) -> str:
    return json.dumps({"level": "INFO", "location": "handler:5", **json.loads(frame)})


FORGERIES: dict[str, Callable[[str], str]] = {
    "a request in an object": lambda one: json.dumps({"message": {"body": one}}),
    "a message of a logger": lambda one: json.dumps({"level": "INFO", "message": one}),
    "an object in an object": lambda one: json.dumps({"payload": json.loads(one)}),
    "an object in a list": lambda one: json.dumps([json.loads(one)]),
    "a string of JSON": json.dumps,
    "JSON in JSON": lambda one: json.dumps({"a": {"b": [json.dumps({"c": one})]}}),
    "merged by a logger": merged,
    "after a prefix": lambda one: f"2026-11-22T11:33:00.123Z\treq\tINFO\t{one}",
    "after a newline in one message": lambda one: f"got body:\n{one}",
    "before a newline in one message": lambda one: f"{one}\nwas the body",
    "after a carriage return": lambda one: f"got\r{one}",
    "after a line separator": lambda one: f"got\u2028{one}",
    "before more text": lambda one: f"{one} was the body",
    "a header": lambda one: f"user-agent: {one}",
    "Fluent Bit's field in an object": lambda one: json.dumps({"log": one, "level": "INFO"}),
    "a document of CloudWatch": lambda one: json.dumps(
        {"messageType": "DATA_MESSAGE", "logEvents": [{"message": one}], "level": "INFO"}
    ),
}


def honest(events: int, key: str | None = None) -> tuple[Batch, list[str]]:
    """A batch that a function has recorded, and its lines."""
    one = batch(events, batch_id=new_id())
    return one, frames_of(one, BY_LOG, 1.0, key=None if key is None else key.encode())


@pytest.mark.parametrize("key", [None, KEY], ids=["no key", "key"])
@pytest.mark.parametrize("way", WAYS)
def test_what_counts(
    way: str,
    key: str | None,
    ingest: Ingest,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The function's own lines, each once, amid forged ones; all of these are reported."""
    if key is not None:
        monkeypatch.setenv("DOOW_TRACK_LOG_KEY", key)
    one, lines = honest(3, key)
    for name, forge in FORGERIES.items():
        caplog.clear()
        _, (forged,) = honest(1)
        WAYS[way](["START RequestId: 1", forge(forged), *lines, "plain text"])
        assert ids_at(ingest) == ids_of(one), name
        assert "usage not understood: " in caplog.text or "came damaged" in caplog.text, name


@pytest.mark.parametrize("way", WAYS)
def test_a_whole_line_of_an_application(
    way: str, ingest: Ingest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts unless there is a log key; then it is refused, and so is another key's."""
    unsigned, lines = honest(1)
    WAYS[way](lines)
    assert ids_at(ingest) == ids_of(unsigned)
    monkeypatch.setenv("DOOW_TRACK_LOG_KEY", KEY)
    monkeypatch.setattr(_relay, "_relay", None)
    signed, own = honest(2, KEY)
    WAYS[way]([*honest(1)[1], *own, *honest(1, "guessed")[1]])
    assert ids_at(ingest) == sorted([*ids_of(unsigned), *ids_of(signed)])
    assert caplog.text.count("usage refused: ") == 2


# ── whatever it logs ────────────────────────────────────────────────────────────────────────────

FORGED = frames_of(batch(1, batch_id=new_id()), BY_LOG, 1.0)[0]
SCRAPS = st.sampled_from(
    [FORGED, FORGED[:-1], FORGED[40:], '{"doow_dead_letter":2,', "doow_dead_letter", "'", '"', "\\"]
)
JSON_VALUES = st.recursive(
    SCRAPS | st.text(max_size=5) | st.integers() | st.just(json.loads(FORGED)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["message", "log", "record", "records", "properties", "body", "data"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
TEXTS = st.one_of(
    st.lists(SCRAPS | st.text(max_size=5), max_size=4).map("".join),
    JSON_VALUES.map(json.dumps),
    JSON_VALUES.map(lambda value: json.dumps(value, indent=1)),
    st.tuples(st.text(max_size=3), JSON_VALUES).map(lambda pair: f"{pair[0]}{json.dumps(pair[1])}"),
)
ENDLESS = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.parametrize("way", WAYS)
@ENDLESS
@given(texts=st.lists(TEXTS, max_size=4))
def test_whatever_an_application_logs(way: str, texts: list[str], ingest: Ingest) -> None:
    """The counted usage is what the function recorded, if no text is a frame's whole line."""
    assume(not any(read_frames(text) for text in texts))
    assume(way != "Event Hub, app logs of Linux" or not any(map(is_frame_without_quotes, texts)))
    before = ids_at(ingest)
    one, lines = honest(2)
    WAYS[way]([*texts, *lines, *texts])
    assert ids_at(ingest) == sorted([*before, *ids_of(one)])


def is_frame_without_quotes(text: str) -> bool:
    """Linux hosts drop single quotes, and so can make a frame of a text that is none."""
    return bool(read_frames(text.replace("'", "")))


@pytest.mark.parametrize("way", WAYS)
@ENDLESS
@given(texts=st.lists(TEXTS | st.just(FORGED), max_size=4))
def test_whatever_an_application_logs_with_a_key(
    way: str, texts: list[str], ingest: Ingest
) -> None:
    """Also if it prints whole lines that are frames but for the signature."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOOW_TRACK_LOG_KEY", KEY)
        patch.setattr(_relay, "_relay", None)
        before = ids_at(ingest)
        one, lines = honest(2, KEY)
        WAYS[way]([*texts, *lines, *texts])
        assert ids_at(ingest) == sorted([*before, *ids_of(one)])

"""Text of an application neither declares what a file is, nor hides the frames in it."""

from __future__ import annotations

import base64
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless._frames.envelopes import Unread
from doow_serverless._frames.format import BY_LOG, MARKER, frames_of
from doow_serverless._frames.reader import Part
from doow_serverless.cli import export_objects
from doow_serverless.cli.export_bytes import Unreadable
from doow_serverless.cli.export_findings import Stray
from doow_serverless.cli.exports import frames_in
from tests.batches import batch
from tests.integration.exporting import EXPORTS, STAMP, STREAM, in_base64
from tests.integration.replaying import AT, replay, text_of
from tests.integration.test_replay_envelopes import (
    docker,
    entry,
    fields,
    frame,
    ids,
    others,
    taken,
    telemetry,
)

if TYPE_CHECKING:
    from doow_serverless.local import Ingest

# ── chunks ──────────────────────────────────────────────────────────────────────────────────────

CRI = "2026-11-22T11:33:00.123456789Z"
PADDED = "got " + "A" * 16_380


def cri(text: str, *, tag: str = "F", stream: str = "stdout") -> str:
    return f"{CRI} {stream} {tag} {text}\n"


def fluent_bit(text: str, **more: Any) -> str:
    return json.dumps({"date": 1.5, "log": text, "stream": "stdout", **more}) + "\n"


def firelens(text: str, **more: Any) -> str:
    container = {"source": "stdout", "container_id": "1", "container_name": "a"}
    return json.dumps({"log": text, **container, **more}) + "\n"


CHUNKS: dict[str, str] = {
    "containerd": cri(PADDED, tag="P") + cri(frame()) + cri(frame("own")),
    "containerd, in the middle": cri(PADDED, tag="P")
    + cri(f"{frame()}{' ' * 9_000}", tag="P")
    + cri(" end")
    + cri(frame("own")),
    "containerd, two streams": cri(PADDED, tag="P")
    + cri(frame("own"), stream="stderr")
    + cri(frame()),
    "containerd, first": cri(f"{frame()}{' ' * 9_000}", tag="P") + cri("end") + cri(frame("own")),
    "Docker": "\n".join([docker(PADDED), docker(f"{frame()}\n"), docker(f"{frame('own')}\n")]),
    "Docker, two streams": "\n".join(
        [
            docker(PADDED),
            docker(f"{frame('own')}\n", stream="stderr"),
            docker(f"{frame()}\n"),
        ]
    ),
    "Docker, at the end": "\n".join([docker(f"{frame('own')}\n"), docker(f"{frame()}    ")]),
    "Fluent Bit, Docker's": fluent_bit(PADDED)
    + fluent_bit(f"{frame()}\n")
    + fluent_bit(f"{frame('own')}\n"),
    "Fluent Bit, containerd's": fluent_bit(PADDED, logtag="P")
    + fluent_bit(frame(), logtag="F")
    + fluent_bit(frame("own"), logtag="F"),
    "Fluent Bit, two containers": fluent_bit(PADDED, logtag="P", kubernetes={"pod_id": "1"})
    + fluent_bit(frame("own"), logtag="F", kubernetes={"pod_id": "2"})
    + fluent_bit(frame(), logtag="F", kubernetes={"pod_id": "1"}),
    "FireLens": firelens(PADDED, partial_message="true", partial_id="1", partial_last="false")
    + firelens(frame(), partial_message="true", partial_id="1", partial_last="true")
    + firelens(frame("own")),
}


@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_of_a_line_is_no_line(name: str) -> None:
    """Padding makes a container runtime cut a line so that the next chunk is exactly a frame."""
    found = taken(CHUNKS[name])

    assert (ids(found), len(others(found))) == (["own"], 1)


def test_a_frame_that_was_cut_is_put_together() -> None:
    """As the frames of versions before format 2, which were longer than a chunk."""
    line = frame("own")

    for text in (
        cri(line[:400], tag="P") + cri(line[400:800], tag="P") + cri(line[800:]),
        "\n".join([docker(line[:400]), docker(line[400:800]), docker(f"{line[800:]}\n")]),
    ):
        assert (ids(taken(text)), others(taken(text))) == (["own"], [])


def test_a_line_of_endless_chunks() -> None:
    """It is not held, its markers are counted, and the next line counts."""
    chunk = f"{'x' * 15_000}{MARKER}"
    chunks = 200
    text = cri(chunk[:-5], tag="P") + cri(chunk[-5:] + chunk, tag="P") * chunks

    found = taken(text + cri("end") + cri(frame("own")))

    assert ids(found) == ["own"]
    assert sum(one.markers for one in found if isinstance(one, Stray)) == 1 + chunks


def test_lines_of_endless_streams() -> None:
    """Lines that never end cost little memory: none is forgotten, so the file is given up."""
    streams = [
        fluent_bit(frame(), logtag="P", kubernetes={"pod_id": str(number)}) for number in range(999)
    ]

    assert {type(one) for one in taken("".join(streams))} == {Stray}
    with pytest.raises(Unreadable, match="more than 1,000 lines of containers"):
        taken("".join(one.replace("pod_id", name) for name in "ab" for one in streams))


# ── kinds ───────────────────────────────────────────────────────────────────────────────────────

_ROW = {"name": "PrimaryResult", "rows": [[frame()]]}
_COLUMNS = [{"name": "message", "type": "string"}]
_EVENT = {"logStreamName": "s", "timestamp": 1, "message": frame()}
FIRST: dict[str, Any] = {
    "a logger with a source": {"level": "INFO", "source": "lambda", "message": frame()},
    "a logger with a source and an id": {
        "id": "1", "level": "INFO", "source": "lambda", "message": frame(),
    },
    "a logger with more": {
        "id": "1", "level": "info", "source": "lambda", "message": frame(), "service": "api",
    },
    "a logger with a type": {"level": "info", "type": "stdout", "message": frame()},
    "log": {"log": frame()},
    "log, stream and more": {
        "log": f"{frame()}\n", "stream": "stdout", "time": STAMP, "level": "INFO",
    },
    "log and date": {"date": "2", "level": "INFO", "msg": "x", "log": frame()},
    "JSON:API": {"data": [{"attributes": {"message": frame()}}]},
    "JSON:API, whole": {"data": [{"id": "1", "type": "post", "attributes": {"message": frame()}}]},
    "JSON:API of logs": {"data": [{"id": "1", "type": "log", "attributes": {"message": frame()}}]},
    "events": {"level": "INFO", "events": [{"message": frame()}]},
    "events and more": {"events": [_EVENT], "searchedLogStreams": [], "level": "INFO"},
    "events with more": {"events": [{**_EVENT, "user": "x"}], "searchedLogStreams": []},
    "results with a status": {
        "results": [[{"field": "@message", "value": frame()}]], "status": "ok",
    },
    "results with more": {
        "results": [[{"field": "@message", "value": frame(), "id": 1}]], "status": "Complete",
    },
    "customDimensions": {"message": frame(), "customDimensions": {}},
    "tables": {"tables": [{"rows": [[frame()]]}]},
    "tables with a name": {"tables": [{**_ROW, "name": "menu"}]},
    "tables with columns": {"tables": [{"rows": [[frame()]], "columns": _COLUMNS}]},
    "tables with columns without types": {"tables": [{**_ROW, "columns": [{"name": "message"}]}]},
    "tables with more": {"tables": [{**_ROW, "columns": _COLUMNS}], "level": "INFO"},
    "another column": {"tables": [{**_ROW, "columns": [{"name": "url", "type": "string"}]}]},
    "telemetry with more": telemetry(frame(), level="INFO"),
    "telemetry of another type": telemetry(frame(), kind="INFO"),
    "records": {"records": [{"properties": {"message": frame()}}]},
    "records with a time": {"records": [{"time": STAMP, "properties": {"message": frame()}}]},
    "a record": {"category": "FunctionAppLogs", "properties": {"message": frame()}},
    "records of a stream": {
        "Records": [{"Data": base64.b64encode(frame().encode()).decode()}],
    },
    "a failed invocation": {
        "requestPayload": {"Records": [{"eventSource": "aws:sqs", "body": frame()}]},
    },
    "a notification": {
        "Type": "Notification", "TopicArn": "arn:x",
        "Message": json.dumps({"Records": [{"eventSource": "aws:sqs", "body": frame()}]}),
    },
    "an event of a bus": {
        "detail-type": "Lambda Function Invocation Result - Failure",
        "detail": {"Records": [{"eventSource": "aws:sqs", "body": frame()}]},
    },
    "an event of SQS": {
        "Records": [{"messageId": "1", "eventSource": "aws:sqs", "body": frame()}],
    },
    "an event of Kinesis": {
        "Records": [
            {
                "eventSource": "aws:kinesis",
                "kinesis": {"data": base64.b64encode(frame().encode()).decode()},
            }
        ],
    },
    "a list of objects": [fields()],
    "an object in another order": dict(sorted(fields().items())),
}  # fmt: skip
"""What an application may print in a line of its own, and what is not, or not all, a tool's."""


@pytest.mark.parametrize("name", FIRST)
@pytest.mark.parametrize("indent", [None, 2])
def test_an_application_declares_nothing(name: str, indent: int | None) -> None:
    """A plain log whose first line is an object of the application; the marker is reported."""
    found = taken(f"{json.dumps(FIRST[name], indent=indent)}\nplain\n\n{frame('own')}\n")

    assert ids(found) == ["own"]
    assert [type(one) for one in found if not isinstance(one, Part)] in ([Stray], [Unread])


IMITATIONS: dict[str, Any] = {
    "log and stream": {"log": f"{frame()}\n", "stream": "stdout"},
    "log and source": {"log": frame(), "source": "stdout", "container_name": "a"},
    "JSON:API, an object": {"data": [{"attributes": {"attributes": fields()}}]},
    "events alone": {"events": [{"message": frame()}]},
    "events with times": {"events": [_EVENT]},
    "results": {"results": [[{"field": "@message", "value": frame()}]]},
    "telemetry": {"type": "function", "record": frame()},
    "a subscription": {"messageType": "DATA_MESSAGE", "logEvents": [{"message": frame()}]},
    "messages": {"Messages": [{"Body": frame()}]},
    "messages of a queue for failures": {
        "Messages": [
            {"Body": json.dumps({"awslogs": {"data": in_base64([frame()])}})},
        ],
    },
    "an event of CloudWatch": {
        "awslogs": {"data": in_base64([frame()])},
    },
}  # fmt: skip
"""Documents of tools with fewer fields than they write: people cut such from an export."""


@pytest.mark.parametrize("name", IMITATIONS)
def test_an_imitation_of_a_whole_document(name: str) -> None:
    """It counts as a whole line does, so only a log key tells who has written it."""
    found = taken(json.dumps(IMITATIONS[name]))

    assert (len(ids(found)), others(found)) == (1, [])


def test_logged_events_without_usage_are_no_matter() -> None:
    """An event that holds no marker is not reported."""
    for event in (
        {"Records": [{"eventSource": "aws:s3", "s3": {}}]},
        {"Records": [{"eventSource": "aws:sqs", "body": "x"}]},
        {"awslogs": {"data": in_base64(["START"])}},
    ):
        found = taken(f"{json.dumps(event)}\nplain\n\n{frame('own')}\n")
        assert (ids(found), others(found)) == (["own"], [])


HONEST: dict[str, str] = {
    "vercel logs --json": json.dumps(
        {"id": "1", "source": "serverless", "level": "info", "message": frame("own")}
    ),
    "Vercel's drain": entry(frame("own"), type="stdout"),
    "filter-log-events": json.dumps({"events": [{**_EVENT, "message": frame("own")}],
                                     "searchedLogStreams": []}),
    "filter-log-events, all fields": json.dumps(
        {"events": [{**_EVENT, "message": frame("own"), "ingestionTime": 1, "eventId": "1"}]}
    ),
    "filter_log_events of boto3": json.dumps(
        {
            "events": [{**_EVENT, "message": frame("own")}], "searchedLogStreams": [],
            "ResponseMetadata": {"HTTPStatusCode": 200},
        }
    ),
    "get-log-events": json.dumps(
        {
            "events": [{"timestamp": 1, "message": frame("own"), "ingestionTime": 1}],
            "nextForwardToken": "f/1", "nextBackwardToken": "b/1",
        }
    ),
    "query API": json.dumps(
        {"tables": [{**_ROW, "rows": [["x", frame("own")]],
                     "columns": [{"name": "time", "type": "datetime"}, *_COLUMNS]}]}
    ),
    "query API, no columns": json.dumps({"tables": [{**_ROW, "rows": [["x", frame("own")]]}]}),
    "a batch of Kinesis that was given up": json.dumps(
        {
            "version": "1.0", "timestamp": STAMP, "requestContext": {"functionArn": "arn:f"},
            "KinesisBatchInfo": {"shardId": "1"},
            "payload": json.dumps(
                {
                    "Records": [
                        {
                            "eventSource": "aws:kinesis",
                            "kinesis": {"data": base64.b64encode(frame("own").encode()).decode()},
                        }
                    ]
                }
            ),
        }
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_what_a_tool_writes_counts(name: str) -> None:
    """With the fields that it always writes, and those that it may write."""
    found = taken(HONEST[name])

    assert (ids(found), others(found)) == (["own"], [])


def test_files_of_objects_hold_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames that were parsed and written again count if the whole file is of them."""
    one, two = (json.dumps(dict(sorted(fields(name).items()))) for name in "ab")

    assert ids(taken(f"{one}\n\n{two}")) == ["a", "b"]
    for other in ("plain", "{}", "[1]", '{"level":"INFO"}', "[", "123", f"x{'x' * 2_000_000}"):
        found = taken(f"{one}\n{other}\n{two}")
        assert (other[:9], ids(found), others(found)) == (
            other[:9], [], [("line 1", 1, ""), ("line 3", 1, "")],
        )  # fmt: skip
    monkeypatch.setattr(export_objects, "_MOST_TEXT", 1_000)
    with pytest.raises(Unreadable, match="more than 256 MB"):
        taken(f"{one}\n{two}\n" * 9)


# ── prefixes ────────────────────────────────────────────────────────────────────────────────────

TAIL = f"2026-11-22T11:33:00.123000+00:00 {STREAM} "
WHY = (
    "is a whole record on a line without the prefix of the file's first line, so it may be text "
    "within an event"
)


@pytest.mark.parametrize(
    "prefix", [TAIL, f"{STAMP} ", "2026-11-22T11:33:00 ", f"{STAMP} [Error] ", f"{CRI} stdout F "]
)
def test_an_event_of_several_lines(prefix: str) -> None:
    """A line without the prefix goes on with an event, and text before makes it no frame's."""
    text = f"{prefix}START\n{prefix}got body:\n{frame()}\n\n{frame()}\n{prefix}{frame('own')}\n"
    found = taken(text)

    assert ids(found) == ["own"]
    assert others(found) == [("line 3", 1, WHY), ("line 5", 1, WHY)]


def test_objects_within_an_event() -> None:
    """What ``--format json`` prints prettily stands behind a prefix, and is a whole event."""
    pretty = json.dumps(dict(sorted(fields().items())), indent=4)

    for event in (
        f"got body:\n{pretty}",
        f"{{\n{frame()}",
        f"{{\n{frame()}\n}}",
        f"[\n{pretty}\n]",
    ):
        found = taken(f"{TAIL}START\n{TAIL}{event}\n{TAIL}{frame('own')}\n")
        assert (event[:9], ids(found), len(others(found))) == (event[:9], ["own"], 1)


def test_a_long_line_ends_no_event() -> None:
    """A frame after a line that is read in pieces is text within the same event."""
    found = taken(f"{TAIL}\n{'x' * 3_000_000}\n{frame()}\n{TAIL}{frame('own')}\n")

    assert (ids(found), others(found)) == (["own"], [("line 3", 1, WHY)])


def test_a_signed_frame_proves_itself() -> None:
    """With a log key a frame counts also on a line that may be text within an event."""
    signed, other = (
        "".join(frames_of(batch(2, batch_id=name), BY_LOG, AT, key=key))
        for name, key in (("own", b"key"), ("other", b"another"))
    )
    text = f"{TAIL}got body:\n{signed}\n{other}\n{frame()}\n".encode()
    stream: Any = io.BufferedReader(io.BytesIO(text))

    found = list(frames_in(stream, lambda one: one.is_signed_by([b"key"])))

    assert (ids(found), len(others(found))) == (["own"], 2)


# ── CSV ─────────────────────────────────────────────────────────────────────────────────────────


def quoted(text: str) -> str:
    return '"{}"'.format(text.replace('"', '""'))


@pytest.mark.parametrize(
    "header",
    [
        "message", "message,x", "@message", "Error, message", "@message,message", "a,message",
        "@timestamp,@message", "timestamp,message",
    ],
)  # fmt: skip
def test_a_log_that_begins_like_csv(header: str) -> None:
    """Each frame of a plain log counts: in CSV no line is one, since quotes are doubled."""
    found = taken(f'{header}\n\n{frame("a")}\nan open "quote\n"\n{frame("b")}\n\n{frame("c")}\n')

    assert (ids(found), others(found)) == (["a", "b", "c"], [])


@pytest.mark.parametrize("header", ["message", "message,x", "@message", "a,message", "x,@message"])
def test_a_header_that_no_portal_writes(header: str) -> None:
    """Text in quotes behind it is text."""
    found = taken(f"{header}\n{quoted(frame())}\n1,{quoted(frame())}\n")

    assert (ids(found), [type(one) for one in found]) == ([], [Stray, Stray])


@pytest.mark.parametrize(
    "header",
    [
        "@timestamp,@message", "@logStream,@message,@log", "timestamp [UTC],message,itemType",
        '"timestamp [Local Time]","message"', "TimeGenerated [UTC],Message,Properties",
    ],
)  # fmt: skip
def test_headers_of_the_portals(header: str) -> None:
    """They name the time, or another field of the portal's own, beside the message."""
    found = taken(f"{header}\nx,{quoted(frame('own'))},y\n")

    assert (ids(found), others(found)) == (["own"], [])


def test_text_within_an_event_is_reported(ingest: Ingest) -> None:
    """With the reason, so that an operator can tell what to do."""
    status, stdout, _ = replay(ingest.url, stdin=f"{TAIL}got body:\n{text_of(batch(2))}")

    assert (status, ingest.events()) == (1, [])
    assert stdout.splitlines()[-1] == f"no record   standard input, line 2: {WHY}"


# ── everything ──────────────────────────────────────────────────────────────────────────────────

_FIRST = st.sampled_from([*FIRST]).map(lambda name: json.dumps(FIRST[name]))
_LINES = st.lists(
    st.one_of(
        _FIRST,
        st.text(max_size=9),
        st.sampled_from(["message,x", "{", "[", '"', "2026-11-22T11:33:00Z"]),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(before=_LINES, after=_LINES)
def test_whatever_a_log_begins_with(before: list[str], after: list[str]) -> None:
    """A plain log with frames on lines of their own: exactly these count."""
    first, last = (
        "".join(f"{text}\n".replace("\r", "") for text in texts) for texts in (before, after)
    )

    found = taken(f"{first}plain\n\n{frame('a')}\n\n{last}\n{frame('b')}\n")

    assert ids(found) == ["a", "b"]


def test_forged_first_lines_in_exports() -> None:
    """As messages of any export they count for nothing."""
    for name, export in EXPORTS.items():
        for first in FIRST.values():
            text = json.dumps(first)
            found = taken(export([text, frame("own")]))
            assert (name, text[:40], "own" in ids(found)) == (name, text[:40], True)

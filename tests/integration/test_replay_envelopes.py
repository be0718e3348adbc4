"""Replay takes exactly the function's own frames out of a log, however it was exported."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tracemalloc
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from doow_serverless._frames.envelopes import Unread
from doow_serverless._frames.format import BY_LOG, frames_of
from doow_serverless._frames.reader import Part, read_frame
from doow_serverless.cli.export_bytes import Unreadable
from doow_serverless.cli.export_findings import Stray
from doow_serverless.cli.exports import frames_in
from tests.batches import batch
from tests.integration.exporting import (
    EXPORTS,
    STAMP,
    STREAM,
    documents,
    kinesis,
    received,
    subscription,
)
from tests.integration.replaying import AT, lines_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from doow_serverless.cli.export_findings import Taken

FORGED = "forged"
START = "START RequestId: 1 Version: $LATEST"
# The first line of a log is the platform's.


def taken(content: str | bytes) -> list[Taken]:
    data = content.encode() if isinstance(content, str) else content
    return list(frames_in(io.BufferedReader(io.BytesIO(data))))


def ids(found: Sequence[Taken]) -> list[str]:
    """The batches whose frames were taken, one id for each frame."""
    return sorted(one.batch_id for one in found if isinstance(one, Part))


def others(found: Sequence[Taken]) -> list[tuple[Any, ...]]:
    return [
        tuple(one) if isinstance(one, tuple) else (type(one).__name__, one.batch_id)
        for one in found
        if not isinstance(one, Part)
    ]


def frame(batch_id: str = FORGED) -> str:
    [line] = frames_of(batch(2, batch_id=batch_id), BY_LOG, AT)
    return line


def fields(batch_id: str = FORGED, **more: Any) -> dict[str, Any]:
    return {**json.loads(frame(batch_id)), **more}


# ── honest ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", EXPORTS)
def test_every_export(name: str) -> None:
    """All frames are found and nothing is reported, also in gzip within gzip."""
    batches = [batch(2, batch_id="a"), batch(80, noise=900, batch_id="b")]
    lines = lines_of(*batches)
    noise = '{"level":"INFO","message":"{}"}'
    content = EXPORTS[name]([START, *lines[:3], noise, *lines[3:], "END"])
    data = content.encode() if isinstance(content, str) else content

    for packed in (data, gzip.compress(data)):
        found = taken(packed)
        assert (ids(found), others(found)) == (["a", *["b"] * (len(lines) - 1)], [])


def _as_text(one: dict[str, Any]) -> dict[str, str]:
    return {name: str(one[name]) for name in sorted(one)}


def _moved(one: dict[str, Any]) -> dict[str, Any]:
    return {name: one[name] for name in one if name not in ("timestamp", "message", "level")}


OBJECTS: dict[str, Callable[[list[dict[str, Any]]], str]] = {
    "a list": json.dumps,
    "a list, pretty": lambda them: json.dumps(them, indent=2),
    "pretty": lambda them: "".join(f"{json.dumps(one, indent=2)}\n" for one in them),
    "pretty, side by side": lambda them: "".join(json.dumps(one, indent=2) for one in them),
    "side by side": lambda them: "".join(json.dumps(one) for one in them),
    "a list, a line each": lambda them: f"[\n{frame('a')},\n{frame('b')}\n]\n",
    "sorted, numbers as text": lambda them: json.dumps([_as_text(one) for one in them]),
    "fields moved out": documents(_moved),  # type: ignore[arg-type, dict-item]
    "telemetry, sorted": lambda them: json.dumps(
        [{"time": STAMP, "type": "function", "record": _as_text(one)} for one in them]
    ),
    "aws logs tail --format json": lambda them: "".join(
        f"{STAMP} {json.dumps(one, indent=4)}\n" for one in them
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_that_are_frames(name: str) -> None:
    """A tool may parse a line that is JSON, and write it anew."""
    found = taken(OBJECTS[name]([fields("a"), fields("b")]))

    assert (ids(found), others(found)) == (["a", "b"], [])


PREFIXES = {
    "aws logs tail": f"2026-11-22T11:33:00.123000+00:00 {STREAM} ",
    "aws logs tail --format short": "2026-11-22T11:33:00 ",
    "CreateExportTask": f"{STAMP} ",
    "docker logs --timestamps": "2026-11-22T11:33:00.123456789Z ",
    "Azure's log stream": "2026-11-22T11:33:00.123 [Information] ",
    "container runtime": "2026-11-22T11:33:00.123456789Z stdout F ",
}


@pytest.mark.parametrize("name", PREFIXES)
def test_empty_lines(name: str) -> None:
    """A frame is written after a newline of its own, and an event may begin with that."""
    prefix = PREFIXES[name]
    text = f"{prefix}no end\n{prefix}{frame('a')}\n\n{prefix}\n{prefix}{frame('b')}\n\n"
    found = taken(text)

    assert (ids(found), others(found)) == (["a", "b"], [])


def test_an_event_of_frames() -> None:
    """An event may consist of several frames, as at the relay."""
    prefix = PREFIXES["aws logs tail"]
    text = f"{prefix}{frame('a')}\n{frame('b')}\n\n{prefix}\n{frame('c')}\n{prefix}{frame('d')}\n"
    found = taken(text)

    assert (ids(found), others(found)) == (["a", "b", "c", "d"], [])


def test_an_application_that_writes_times() -> None:
    """Only a time as a tool writes it is a prefix: in a plain log, frames have none."""
    for time in ("2026-11-22T11:33:00Z", "2026-11-22T11:33:00.123456+00:00", "2026-11-22 11:33:00"):
        found = taken(f"{time} started\n\n{frame('a')}\n{time} {{\n\n{frame('b')}\n")
        assert (time, ids(found), others(found)) == (time, ["a", "b"], [])


def test_frames_within_what_was_never_ended() -> None:
    """A frame stands on a line of its own, even if the application was printing JSON."""
    for before, after in (('{"a":', "}"), ("[", "]"), ("[1,", "2]"), ("{", "START"), ("[[[", "")):
        found = taken(f"{before}\n{frame('a')}\n{after}\n{frame('b')}")
        assert (before, ids(found), others(found)) == (before, ["a", "b"], [])


def test_a_document_that_is_cut_off_spoils_no_other() -> None:
    """Disks fill up, and copies are interrupted."""
    lines = documents(lambda one: {"log": f"{one}\n", "stream": "stdout", "time": STAMP})
    text = lines([frame("a")]) + '{"log":"cut\n{"stream":\n' + lines([frame("b"), frame("c")])

    found = taken(text)

    assert (ids(found), others(found)) == (["a", "b", "c"], [])

    pretty = json.dumps({"log": f"{frame('d')}\n", "stream": "stdout", "time": STAMP}, indent=2)
    assert ids(taken(lines([frame("a")]) + '{"log":"cut",\n' + pretty)) == ["a", "d"]


def test_csv_of_odd_programs() -> None:
    """Neither lone carriage returns nor NULs, nor a value that is huge, hide the rows after it."""
    row = f'x,"{frame("a")}"\n'.replace('"', '""').replace('""{', '"{').replace('}""', '}"')
    text = f"timestamp,message\n1\r2,y\n\0,z\n{row}"

    assert (ids(taken(text)), others(taken(text))) == (["a"], [])
    huge = taken(f'timestamp,message\n1,"{"x" * 5_000_000}"\n{row}')
    assert ids(huge) == ["a"]
    assert [type(one) for one in huge] == [Unread, Part]


# ── forged ──────────────────────────────────────────────────────────────────────────────────────

FORGERIES: dict[str, Callable[[], str]] = {
    "nested in JSON": lambda: json.dumps({"message": {"ua": frame()}}),
    "a logger's message": lambda: json.dumps({"level": "INFO", "message": frame()}),
    "Lambda's JSON format": lambda: json.dumps(
        {"timestamp": STAMP, "level": "INFO", "message": frame(), "requestId": "1"}
    ),
    "within a line": lambda: f"GET / UA={frame()}",
    "after a print without an end": lambda: f"a print without an end{frame()}",
    "before other text": lambda: f"{frame()} and more",
    "merged by a logger": lambda: json.dumps(fields(service="api", logger="x")),
    "merged, the frame first": lambda: f'{frame()[:-1]},"service":"api"}}',
    "an object in an object": lambda: json.dumps({"record": fields()}),
    "pretty, in an object": lambda: json.dumps({"record": fields()}, indent=2),
    "a list in an object": lambda: json.dumps({"items": [fields(), frame()]}),
    "printed as JSON": lambda: json.dumps(frame()),
    "twice as JSON": lambda: json.dumps(json.dumps(frame())),
    "in a frame's message": lambda: json.dumps(fields("x", message=frame(), service="api")),
    "in quotes for CSV": lambda: 'x,"{}"'.format(frame().replace('"', '""')),
    "in HTML": lambda: frame().replace('"', "&quot;"),
    "an asctime": lambda: f"2026-11-22 11:33:00,123 {frame()}",
    "another level": lambda: f"{STAMP} [INFO] {frame()}",
    "Lambda's text format": lambda: f"[INFO]\t{STAMP}\t1\t{frame()}",
    "like Vercel": lambda: json.dumps({"message": frame(), "type": "stdout"}),
    "like docker": lambda: json.dumps({"log": frame(), "stream": "stdout", "time": STAMP}),
    "like telemetry": lambda: json.dumps({"type": "function", "record": frame()}),
    "like a subscription": lambda: json.dumps({"logEvents": [{"message": frame()}]}),
    "like an export": lambda: json.dumps({"message": frame(), "customDimensions": {}}),
    "like a queue": lambda: json.dumps({"Records": [{"body": frame()}]}),
    "like CSV": lambda: 'a,message\n1,"{}"'.format(frame().replace('"', '""')),
    "with a prefix": lambda: f"{STAMP} {frame()}",
    "with a container's prefix": lambda: f"{STAMP} stdout F {frame()}",
}


@pytest.mark.parametrize("export", EXPORTS)
def test_forgeries(export: str) -> None:
    """Text that the application logs reports no usage, and is reported itself."""
    for name, forgery in FORGERIES.items():
        found = taken(EXPORTS[export]([START, frame("own"), forgery(), frame("more")]))
        assert (name, ids(found), bool(others(found))) == (name, ["more", "own"], True)


def event(message: str, **more: Any) -> dict[str, Any]:
    return {"id": "1", "timestamp": 1, "message": message, **more}


def entry(message: str, **more: Any) -> str:
    """An entry of a log of Vercel."""
    return json.dumps({"id": "1", "message": message, "source": "lambda", **more})


def docker(text: str, **more: Any) -> str:
    """A line of Docker's json-file, or a chunk of one."""
    return json.dumps({"log": text, "stream": "stdout", "time": STAMP, **more})


def telemetry(record: str, kind: str = "function", **more: Any) -> dict[str, Any]:
    return {"time": STAMP, "type": kind, "record": record, **more}


SIDES: dict[str, Callable[[str, str], str]] = {
    "extractedFields": lambda own, other: json.dumps(
        {**subscription([]), "logEvents": [event(own, extractedFields={"agent": other})]}
    ),
    "another field of Insights": lambda own, other: json.dumps(
        {
            "results": [[{"field": "@message", "value": own}, {"field": "agent", "value": other}]],
            "status": "Complete",
        }
    ),
    "User-Agent": lambda own, other: entry(own, proxy={"userAgent": [other]}, path=other),
    "a request of Vercel": lambda own, other: f"{entry(own)}\n{entry(other, source='static')}",
    "another column": lambda own, other: json.dumps(
        {
            "tables": [
                {
                    "name": "PrimaryResult",
                    "columns": [{"name": n, "type": "string"} for n in ("message", "url")],
                    "rows": [[own, other]],
                },
            ]
        }
    ),
    "another column of CSV": lambda own, other: '@timestamp,@message,url\nx,"{}","{}"'.format(
        *(text.replace('"', '""') for text in (own, other))
    ),
    "properties of a trace": lambda own, other: json.dumps(
        {
            "records": [
                {
                    "time": STAMP,
                    "resourceId": "/SITES/APP",
                    "Type": "AppTraces",
                    "Message": own,
                    "OperationName": other,
                }
            ]
        }
    ),
    "a platform's telemetry": lambda own, other: json.dumps(
        [telemetry(own), telemetry(other, "extension")]
    ),
    "more fields in telemetry": lambda own, other: json.dumps(
        [telemetry(own), telemetry(other, x=1)]
    ),
    "a label of a container": lambda own, other: docker(f"{own}\n", attrs={"a": other}),
    "attributes of a message": lambda own, other: received(
        own, MessageAttributes={"a": {"StringValue": other}}
    ),
    "a message to a function that failed": lambda own, other: received(
        own, json.dumps({"requestContext": {}, "requestPayload": body(other)})
    ),
    "a partial line of a container": lambda own, other: (
        f"{STAMP} stdout F {own}\n{STAMP} stdout P {other}\n{STAMP} stdout F and more\n"
    ),
    "a document of another kind": lambda own, other: f"{docker(own + chr(10))}{entry(other)}",
}


def body(text: str) -> dict[str, Any]:
    """An event of a function that reads a queue."""
    return {"Records": [{"body": text}, {"Sns": {"Message": text}}]}


@pytest.mark.parametrize("name", SIDES)
def test_other_fields(name: str) -> None:
    """Only the field that holds lines is read, and only in documents of the file's kind."""
    found = taken(SIDES[name](frame("own"), frame()))

    assert ids(found) == ["own"]
    assert others(found) != []


PARSING = {"aws logs tail --format json", "telemetry", "logs of Lambda in S3", "Datadog"}
"""Exports that parse a line which is JSON, so that its blanks are lost."""


@pytest.mark.parametrize("export", sorted(EXPORTS.keys() - PARSING))
def test_objects_that_the_application_has_printed(export: str) -> None:
    """A request that is printed as JSON is no line of ours, unless a tool has parsed it."""
    found = taken(EXPORTS[export]([START, json.dumps(fields()), frame("own")]))

    assert ids(found) == ["own"]
    assert others(found) != []


_TEXT = st.text(st.characters(codec="utf-8"), max_size=20) | st.text('{}[]",:\\ \n1n', max_size=9)
_INSIDE = st.sampled_from([*FORGERIES]).map(lambda name: FORGERIES[name]())
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXT | _INSIDE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            _TEXT | st.sampled_from(["message", "log", "record", "type", "events", "records"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
_LOGGED = (
    st.tuples(_TEXT, _INSIDE | _TEXT, _TEXT).map("".join)
    | _JSON.map(json.dumps)
    | _JSON.map(lambda value: json.dumps(value, indent=2))
)


def _is_not_ours(text: str) -> bool:
    return not any(isinstance(read_frame(line), Part) for line in text.splitlines())


@settings(max_examples=150, deadline=None)
@given(
    export=st.sampled_from([*EXPORTS]),
    logged=st.lists(_LOGGED.filter(_is_not_ours), max_size=5),
    places=st.lists(st.integers(0, 5), min_size=1, max_size=4),
)
def test_whatever_is_logged(export: str, logged: list[str], places: list[int]) -> None:
    """Exactly the function's own frames are found, and every other marker is accounted for."""
    messages = [text.replace("\r", "") for text in logged]
    names = [f"own-{number}" for number in range(len(places))]
    for name, place in zip(names, places, strict=True):
        messages.insert(place, frame(name))

    found = taken(EXPORTS[export]([START, *messages]))

    assert ids(found) == sorted(names)
    marked = any("doow_dead_letter" in text for text in logged)
    assert bool(others(found)) is marked


# ── reported ────────────────────────────────────────────────────────────────────────────────────


def test_strays_are_reported_with_their_place() -> None:
    """An operator can look at them."""
    text = json.dumps({"level": "INFO", "message": frame()})

    assert others(taken(f"START\n{text}\nGET {frame()} {frame()}\n")) == [
        Stray("line 2"),
        Stray("line 3", 2),
    ]
    assert others(taken(EXPORTS["filter-log-events"]([START, text]))) == [
        Stray("line 1, events[1]")
    ]
    assert others(taken(EXPORTS["dead-letter queue"]([START, text]))) == [
        Stray(
            "line 1, Messages[0]: event 1 of log stream "
            "2026/11/22/[$LATEST]0123456789abcdef0123456789abcdef of log group /aws/lambda/api"
        )
    ]
    assert others(taken(EXPORTS["Vercel's drain"]([text]))) == [Stray("line 1, [0], message")]


def test_every_marker_is_counted() -> None:
    """Also in a line that is read in pieces, and in a document that never ends."""
    markers = 200_000
    found = [one for one in taken("x" + "doow_dead_letter" * markers) if isinstance(one, Stray)]

    assert sum(one.markers for one in found) == markers
    assert taken('{"a":\n"doow_dead_letter"') == [Stray("line 2")]


@pytest.mark.parametrize("name", EXPORTS)
def test_damaged_frames_are_named(name: str) -> None:
    """A line that begins as a frame and is cut off or altered tells whose it was."""
    cut = frame("cut")
    altered = frame("altered").replace('"events":2', '"events":3')

    found = taken(EXPORTS[name]([START, cut[:-40], frame("whole"), altered]))

    assert ids(found) == ["whole"]
    assert others(found) == [("Damage", "cut"), ("Damage", "altered")]


def test_a_frame_that_docker_has_cut_is_named() -> None:
    """Docker's json-file may end within a line."""
    assert others(taken(docker(frame("cut")[:400]))) == [("Damage", "cut")]


def zip_of(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.log", content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (zip_of(b"x"), "zip archive: unpack it first"),
        (gzip.compress(zip_of(b"x")), "zip archive: unpack it first"),
        (gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"x")))), "levels deep"),
        (gzip.compress(b"x" * 1000)[:-9], "end-of-stream"),
    ],
    ids=["zip", "zip in gzip", "gzip in gzip", "cut off"],
)
def test_what_cannot_be_read_says_why(content: bytes, why: str) -> None:
    """So that the user knows what to do."""
    with pytest.raises(Unreadable, match=why):
        taken(content)


@pytest.mark.parametrize(
    ("record", "why"),
    [("?", "holds no valid base64"), ("H4sIAAAA", "is gzip that is cut off")],
)
def test_records_that_cannot_be_unwrapped(record: str, why: str) -> None:
    """They may hold usage, so they are reported."""
    content = kinesis(b"").replace('"Data": ""', f'"Data": "{record}"')

    assert others(taken(content)) == [Unread("line 1, Records[0]: Kinesis record 1", why)]


# ── bounded ─────────────────────────────────────────────────────────────────────────────────────


def peak_of(blocks: Iterable[bytes]) -> tuple[list[Taken], float]:
    """What is found in a stream of ``blocks``, and the megabytes that it took at most."""
    stream: Any = io.BufferedReader(Blocks(blocks))
    tracemalloc.start()
    found = list(frames_in(stream))
    peak = tracemalloc.get_traced_memory()[1] / 1024 / 1024
    tracemalloc.stop()
    return found, peak


class Blocks(io.RawIOBase):
    """A stream of so many blocks, each made when it is read."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = next(self._blocks, b"")
        buffer[: len(block)] = block
        return len(block)


_OWN = frame("own").encode()
_LINE = b"START RequestId: 1 " * 400 + b"\n"
_DOCUMENT = docker("x" * 7_000 + "\n").encode()
_ENTRY = docker(f"{frame('own')}\n").encode()


@pytest.mark.parametrize(
    ("first", "block", "last"),
    [
        (b"START\n", _LINE, _OWN),
        (b"START\n", b"x" * 8_000, b"\n" + _OWN),
        (b"START {", b"x" * 8_000, b"\n" + _OWN),
        (b"[", b"[{" * 4_000, b"\n" + _OWN),
        (b"", _DOCUMENT + b"\n", _ENTRY),
        (b"", _DOCUMENT, _ENTRY),
        (b"{\n", b'{"a": "%s"}\n' % (b"x" * 7_000), b"\n" + _OWN),
    ],
    ids=[
        "lines", "one line", "a line of braces", "nesting", "a document a line", "side by side",
        "an object that never ends",
    ],
)  # fmt: skip
def test_memory_is_bounded(first: bytes, block: bytes, last: bytes) -> None:
    """Text and documents of any length are read as they come."""
    found, peak = peak_of(itertools.chain([first], itertools.repeat(block, 2_500), [last]))

    assert (ids(found), others(found)) == (["own"], [])
    assert peak < 12, "of 20 MB"


HOSTILE = {
    "backslashes": "\\",
    "escapes": "\\u",
    "quotes": '\\"',
    "entities": "&quot;",
    "commas": ",",
    "markers": "doow_dead_letter",
    "opened markers": '{"doow_dead_letter":1,',
    "lists": "[",
    "objects": '{"a":',
    "lines of lists": "[\n",
    "digits": "1",
    "documents": "{}",
    "broken documents": '{"a":1}\n{\n',
    "prefixes": f"{STAMP} ",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("start", ["", '{"doow_dead_letter":2,', '{"logEvents":[{"message":"', "["])
def test_hostile_text(name: str, start: str) -> None:
    """It is survived, on its own and as a message, and costs no frame after it."""
    text = start + HOSTILE[name] * (200_000 // len(HOSTILE[name]))

    for content in (
        f"{text}\n{STAMP * text.startswith(STAMP)} {frame('own')}\n",
        EXPORTS["filter-log-events"]([text, frame("own")]),
    ):
        assert ids(taken(content)) == ["own"]

"""The documents in which export tools put lines of a log: which say so, and where the lines stand.

Each kind is recognised by the fields that it has always, and its lines are taken from one place.
Whatever stands elsewhere in a document is somebody else's text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from doow_serverless._frames.reader import frame_of

from .export_messages import (
    Fields,
    all_objects,
    diagnostic,
    diagnostics,
    for_lambda,
    has_objects,
    is_diagnostic,
    is_for_lambda,
    is_stream,
    line_of,
    messages,
    objects,
    stream,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .export_messages import Found


class Kind(NamedTuple):
    """One kind of document: whether an object is one, and what it wraps."""

    declares: Callable[[dict[str, Any]], bool]
    unwrap: Callable[[dict[str, Any], str], Iterator[Found]]


def kind_of(value: Any) -> Kind | None:
    """Return the kind of a document, or of the first object of a list; None if it is no export."""
    if isinstance(value, list):
        value = next((each for each in value if isinstance(each, dict)), None)
    if not isinstance(value, dict):
        return None
    return next((kind for kind in KINDS if kind.declares(value)), None)


def unwrapped(value: Any, kind: Kind, origin: str) -> Iterator[Found]:
    """Yield what a document of ``kind`` wraps; nothing for a document of another kind."""
    if isinstance(value, list):
        places = [(each, f"{origin}, [{at}]") for at, each in enumerate(value)]
    else:
        places = [(value, origin)]
    for each, place in places:
        if isinstance(each, dict) and kind.declares(each):
            yield from kind.unwrap(each, place)


# ── CloudWatch ──────────────────────────────────────────────────────────────────────────────────


def _is_events(value: dict[str, Any]) -> bool:
    """The answer of FilterLogEvents or GetLogEvents."""
    events = value.get("events")
    return all_objects(events) and all(isinstance(e.get("message"), str) for e in events or ())


def _messages(name: str) -> Callable[[dict[str, Any], str], Iterator[Found]]:
    def unwrap(value: dict[str, Any], origin: str) -> Iterator[Found]:
        for event, place in objects(value, name, origin):
            yield from line_of(event.get("message"), place)

    return unwrap


def _is_results(value: dict[str, Any]) -> bool:
    """The answer of GetQueryResults, of Logs Insights."""
    results = value.get("results")
    return isinstance(results, list) and all(all_objects(row) for row in results)


def _results(value: dict[str, Any], origin: str) -> Iterator[Found]:
    for at, row in enumerate(value["results"]):
        for cell in row:
            if cell.get("field") == "@message":
                yield from line_of(cell.get("value"), f"{origin}, results[{at}]")


def _is_telemetry(value: dict[str, Any]) -> bool:
    """A record of Lambda's Telemetry API, and of its logs in S3."""
    return {"type", "record"} <= value.keys() <= {"type", "record", "time"}


def _telemetry(value: dict[str, Any], origin: str) -> Iterator[Found]:
    if value["type"] == "function":
        record = value["record"]
        if isinstance(record, dict):
            yield Fields(record, f"{origin}, record")
        yield from line_of(record, f"{origin}, record")


# ── Vercel, containers, Datadog ─────────────────────────────────────────────────────────────────

_WRITTEN = ("lambda", "serverless")
_SOURCES = (*_WRITTEN, "build", "edge", "external", "firewall", "redirect", "static")
_STREAMS = ("stdout", "stderr")


def _is_vercel(value: dict[str, Any]) -> bool:
    """An entry of Vercel's logs, of the command or of a drain."""
    is_entry = value.get("source") in _SOURCES or value.get("type") in _STREAMS
    return is_entry and "log" not in value and "record" not in value


def _vercel(value: dict[str, Any], origin: str) -> Iterator[Found]:
    if value.get("type") in _STREAMS or value.get("source") in _WRITTEN:
        yield from line_of(value.get("message"), f"{origin}, message")


_CONTAINER = {"container_id", "container_name", "date", "ecs_task_arn", "kubernetes", "stream"}


def _is_container(value: dict[str, Any]) -> bool:
    """A line of Docker's json-file, or of FireLens and Fluent Bit."""
    return isinstance(value.get("log"), str) and (
        len(value) == 1 or not _CONTAINER.isdisjoint(value)
    )


def _container(value: dict[str, Any], origin: str) -> Iterator[Found]:
    yield from line_of(value["log"], f"{origin}, log")


def _is_datadog(value: dict[str, Any]) -> bool:
    """A page of Datadog's log search."""
    data = value.get("data")
    return all_objects(data) and all(isinstance(one.get("attributes"), dict) for one in data or ())


def _datadog(value: dict[str, Any], origin: str) -> Iterator[Found]:
    for one, place in objects(value, "data", origin):
        yield from line_of(one["attributes"].get("message"), place)
        if isinstance(one["attributes"].get("attributes"), dict):
            yield Fields(one["attributes"]["attributes"], place)


# ── Azure ───────────────────────────────────────────────────────────────────────────────────────


def _is_tables(value: dict[str, Any]) -> bool:
    """The answer of the query API of Application Insights or Log Analytics."""
    tables = value.get("tables")
    return all_objects(tables) and all(isinstance(t.get("rows"), list) for t in tables or ())


def _tables(value: dict[str, Any], origin: str) -> Iterator[Found]:
    for table, place in objects(value, "tables", origin):
        columns = _message_columns(table.get("columns"))
        for at, row in enumerate(table["rows"]):
            for number, cell in enumerate(row if isinstance(row, list) else ()):
                if columns is None or number in columns:
                    yield from line_of(cell, f"{place}, rows[{at}]")


def _message_columns(columns: Any) -> set[int] | None:
    if not all_objects(columns):
        return None
    return {at for at, one in enumerate(columns) if str(one.get("name")).lower() == "message"}


def _message(value: dict[str, Any], origin: str) -> Iterator[Found]:
    yield from line_of(value.get("message"), f"{origin}, message")


# ── all ─────────────────────────────────────────────────────────────────────────────────────────


def _one(value: dict[str, Any], origin: str) -> Iterator[Found]:
    yield Fields(value, origin)


FRAMES = Kind(lambda value: frame_of(value) is not None, _one)
"""Objects that are frames: lines that a tool has parsed and written again."""

KINDS = (
    FRAMES,
    Kind(_is_telemetry, _telemetry),
    Kind(has_objects("logEvents"), _messages("logEvents")),
    Kind(_is_events, _messages("events")),
    Kind(_is_results, _results),
    Kind(_is_container, _container),
    Kind(_is_vercel, _vercel),
    Kind(has_objects("records"), diagnostics),
    Kind(is_diagnostic, diagnostic),
    Kind(_is_tables, _tables),
    Kind(lambda value: "message" in value and "customDimensions" in value, _message),
    Kind(_is_datadog, _datadog),
    Kind(is_stream, stream),
    Kind(has_objects("Messages"), messages),
    Kind(is_for_lambda, for_lambda),
)
"""The first that an object declares to be counts."""

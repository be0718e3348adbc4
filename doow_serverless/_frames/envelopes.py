"""Unwraps the texts that functions wrote from the documents in which their platforms export them.

Each function takes out exactly the field into which its platform puts a line of the log. Any other
JSON is somebody's own text: it is handed on as it is, and never looked into. Usage is counted only
from a text that is a frame as a whole (see `reader`), so text within a text counts for nothing.

Input without the marker of frames yields nothing. It is not even parsed: the marker is plain ASCII,
which no writer of JSON escapes.
"""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple

from doow_serverless._redaction import clean, looks_secret

from . import kpl
from .format import MARKER
from .unpacking import (
    GZIP_MAGIC,
    from_base64,
    from_json,
    next_json,
    path_of,
    peek,
    refuse_many_values,
    restore_properties,
    restore_quotes,
    to_text,
    unpacked,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Found = Iterator["Line | Unread"]


class Line(NamedTuple):
    """One text as a function wrote it: a line of the log, or several.

    Attributes:
        text: The whole text.
        origin: Where it stood, in words for an operator.
    """

    text: str
    origin: str


class Unread(NamedTuple):
    """Input that may hold usage, and was not unwrapped.

    Attributes:
        origin: Where it stood, in words for an operator.
        why: The reason, in words that continue "the input ".
    """

    origin: str
    why: str


_LONGEST_NAME = 200
_MOST_LEVELS = 8
"""Documents within documents: Lambda's record within EventBridge's, SNS's and SQS's has four."""
_MARKER = MARKER.encode()
_GZIP_IN_BASE64 = "H4sI"
_LOOKED_AT = 100
"""Characters in which gzip in base64 has to begin."""


def _named(value: object) -> str:
    """Return a name from the input for a message: short, and safe to print."""
    if not isinstance(value, str) or not value:
        return "?"
    name = clean(value, _LONGEST_NAME)
    return "…" if looks_secret(name) else name


def _stray(value: object, origin: str, why: str) -> Found:
    """Report ``value``, which is not unwrapped, if it holds the marker."""
    if path_of(MARKER, value) is not None:
        yield Unread(origin, why)


def _elsewhere(fields: dict[str, Any], but: tuple[str, ...], origin: str) -> Found:
    """Report the marker if it stands in another of ``fields`` than those of ``but``."""
    path = path_of(MARKER, {name: item for name, item in fields.items() if name not in but})
    if path is not None:
        where = _named(path) if path else "the name of a field"
        yield Unread(
            origin, f"holds the marker in {where}, which is not the text that a function wrote"
        )


def _text(text: str, origin: str, platform: str) -> Found:
    """Hand on a text that ``platform`` does not wrap, unless it was packed by somebody."""
    if MARKER in text:
        yield Line(text, origin)
    elif text[:_LOOKED_AT].lstrip().startswith(_GZIP_IN_BASE64) and _MARKER in peek(text.strip()):
        yield Unread(origin, f"is gzip in base64, which {platform} does not write")


# ── CloudWatch Logs ─────────────────────────────────────────────────────────────────────────────


_MESSAGE_TYPES = ("DATA_MESSAGE", "CONTROL_MESSAGE")


def from_cloudwatch(data: bytes) -> Found:
    """Unwrap the messages of a CloudWatch Logs subscription: ``logEvents[].message``.

    ``extractedFields`` repeat parts of a message, and are left alone.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/SubscriptionFilters.html

    Args:
        data: One message or several, one after the other: gzip, gzip of gzip, or unpacked.
    """
    yield from _cloudwatch(data, "the message of CloudWatch Logs")


def _cloudwatch(data: bytes, origin: str) -> Found:
    try:
        data = unpacked(data)
        if _MARKER not in data:
            return
        text = to_text(data)
    except ValueError as problem:
        yield Unread(origin, str(problem))
        return
    at = end = 0
    while at < len(text):
        try:
            document, end = next_json(text, at)
        except ValueError as problem:
            document, why = None, f": it {problem}"
        else:
            why = ""
        if not isinstance(document, dict) or document.get("messageType") not in _MESSAGE_TYPES:
            # All that follows is somebody else's, too.
            if MARKER in text[at:]:
                yield Unread(origin, f"is no message of CloudWatch Logs{why}")
            return
        yield from _log_events(document, origin)
        at = end


def _log_events(document: dict[str, Any], origin: str) -> Found:
    if document["messageType"] == "CONTROL_MESSAGE":
        return  # CloudWatch asks whether the destination is there.
    events = document.get("logEvents")
    if not isinstance(events, list):
        yield from _stray(document, origin, "is a message of CloudWatch Logs without events")
        return
    place = (
        f"log stream {_named(document.get('logStream'))} "
        f"of log group {_named(document.get('logGroup'))}"
    )
    for event in events:
        message = event.get("message") if isinstance(event, dict) else None
        if not isinstance(message, str):
            yield from _stray(event, place, "is a log event without a message")
            continue
        if MARKER in message:  # Else nobody will ask which event it was.
            yield Line(message, f"event {_named(event.get('id'))} of {place}")
        else:
            yield Line(message, place)
            yield from _elsewhere(event, ("message",), place)


def from_logs_event(event: Any) -> Found:
    """Unwrap the event with which CloudWatch Logs invokes a function, or its failure document.

    Args:
        event: ``{"awslogs": {"data": …}}``; a document that holds it, see :func:`from_sqs`; or an
            event of SNS that carries such documents.
    """
    origin = "the event of CloudWatch Logs"
    carried = _carried_by_sns(event)
    for document in [event] if carried is None else carried:
        found = _from_document(document, origin, 0)
        if found is None:
            yield Unread(origin, "is no event of CloudWatch Logs")
        else:
            yield from found


# ── Kinesis ─────────────────────────────────────────────────────────────────────────────────────

_OTHER_PACKING = {b"\x28\xb5\x2f\xfd": "zstd", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}
"""Compression that agents offer, by its first bytes. No text in UTF-8 begins so."""

_TAGS = ("logtag", "_p")
_PARTIAL = ("partial_message", "partial_id", "partial_ordinal", "partial_last")
_AGENT_FIELDS = frozenset({
    # Fluent Bit's parsers for containers: docker, cri.
    # https://docs.fluentbit.io/manual/data-pipeline/parsers/configuring-parser
    "log", "stream", "time", *_TAGS,
    # Docker's driver for FireLens. https://docs.docker.com/engine/logging/drivers/fluentd/
    "source", "container_id", "container_name",
    *_PARTIAL,
    # FireLens. https://docs.aws.amazon.com/AmazonECS/latest/developerguide/using_firelens.html
    "ecs_cluster", "ecs_task_arn", "ecs_task_definition",
    # Fluent Bit's filters kubernetes and aws.
    # https://docs.fluentbit.io/manual/data-pipeline/filters/aws-metadata
    "kubernetes", "ec2_instance_id", "ec2_instance_type", "az", "private_ip", "vpc_id", "ami_id",
    "account_id", "hostname", "host",
    # The time as an output adds it (time_key), and the tag.
    "date", "timestamp", "@timestamp", "tag",
})  # fmt: skip
_STREAMS = ("stdout", "stderr")


def from_kinesis(record: Any) -> Found:
    """Unwrap one record of a Kinesis event of Lambda.

    Aggregated records (KPL) are unpacked. Each user record is a gzip message of CloudWatch Logs, a
    line, or an object of Fluent Bit or FireLens with the line in ``log``.

    Args:
        record: A member of ``event["Records"]``.
    """
    fields = record.get("kinesis") if isinstance(record, dict) else None
    if not isinstance(fields, dict):
        yield Unread("a Kinesis record", "holds no data")
        return
    origin = f"Kinesis record {_named(record.get('eventID') or fields.get('sequenceNumber'))}"
    try:
        data = from_base64(fields.get("data"))
        parts = kpl.unpack(data) if data.startswith(kpl.MAGIC) else None
    except ValueError as problem:
        yield Unread(origin, str(problem))
        return
    if parts is None:
        yield from _from_user_record(data, origin)
        return
    for number, part in enumerate(parts, 1):
        yield from _from_user_record(part, f"user record {number} of {origin}")


def _from_user_record(data: bytes, origin: str) -> Found:
    packing = [name for magic, name in _OTHER_PACKING.items() if data.startswith(magic)]
    if data.startswith(GZIP_MAGIC):
        yield from _cloudwatch(data, origin)
    elif packing:
        yield Unread(origin, f"is compressed with {packing[0]}: switch that off in its producer")
    else:
        yield from _from_lines(data, origin)


def _from_lines(data: bytes, origin: str) -> Found:
    if _MARKER in data:
        try:
            refuse_many_values(data)
        except ValueError as problem:
            yield Unread(origin, str(problem))
            return
    elif not data[:_LOOKED_AT].lstrip().startswith(_GZIP_IN_BASE64.encode()):
        return
    text = data.decode(errors="replace")
    objects = _agent_objects(text)
    if objects is None:
        yield from _text(text, origin, "Kinesis")
        return
    for fields in objects:
        if _is_chunk(fields):
            yield from _stray(fields, origin, "holds the marker in a piece of a line")
            continue
        yield Line(fields["log"], origin)
        yield from _elsewhere(fields, ("log",), origin)


def _agent_objects(text: str) -> list[dict[str, Any]] | None:
    """Return the objects of Fluent Bit or FireLens that ``text`` consists of, one a line, or None.

    Both name the stream that a container's line was written to. An object that does not, or that
    has fields of its own, was written by the application itself.
    """
    found = []
    for line in text.strip().split("\n"):
        if not line.startswith("{") or '"log"' not in line:
            return None
        try:
            fields = from_json(line)
        except ValueError:
            return None
        named = (fields.get("stream"), fields.get("source"))
        is_agent = (
            isinstance(fields.get("log"), str)
            and fields.keys() <= _AGENT_FIELDS
            and any(name in _STREAMS for name in named)
        )
        if not is_agent:
            return None
        found.append(fields)
    return found


def _is_chunk(fields: dict[str, Any]) -> bool:
    """Return whether ``log`` is a piece of a line.

    Docker and containerd cut lines at 16 kB, so whoever sends text that is logged can choose where
    a piece begins. A frame is shorter, and never cut.
    """
    return any(name in fields for name in _PARTIAL) or any(
        fields.get(name, "F") != "F" for name in _TAGS
    )


# ── documents of failed invocations ─────────────────────────────────────────────────────────────

_INVOCATION = frozenset({
    "version", "timestamp", "requestContext", "requestPayload", "responseContext",
    "responsePayload",
})  # fmt: skip
"""https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html"""
_OF_DOCUMENTS = ("awslogs", "requestContext", "KinesisBatchInfo")
"""Each document that may matter has one of these names, also if its data is packed."""
_EVENT_BRIDGE = "Lambda Function Invocation Result - Failure"


def from_sqs(message: Any) -> Found:
    """Unwrap one SQS message of an event of Lambda.

    The body is a text, or a document that Lambda puts into queues for failed invocations: the event
    itself (dead-letter queue), or a record that holds it (destination), also through SNS and
    EventBridge. Every other JSON is a text: so is an event of Kinesis or SQS, since a record of a
    failed invocation holds none, and an application that reads a queue may log one.

    Args:
        message: A member of ``event["Records"]``.
    """
    fields = message if isinstance(message, dict) else {}
    origin = f"SQS message {_named(fields.get('messageId'))}"
    body = fields.get("body")
    if not isinstance(body, str):
        yield Unread(origin, "has no body")
        return
    document = _object_of(body) if any(word in body for word in _OF_DOCUMENTS) else None
    found = _from_document(document, origin, 0)
    yield from _text(body, origin, "SQS") if found is None else found


def _object_of(text: str) -> object:
    """Return the object that ``text`` is the JSON of, or None."""
    if not text.lstrip().startswith("{"):
        return None
    try:
        return from_json(text)
    except ValueError:
        return None


def _from_document(document: object, origin: str, level: int) -> Found | None:
    """Unwrap a document that AWS writes for an invocation of a relay; None if it is none."""
    if not isinstance(document, dict) or level > _MOST_LEVELS:
        return None
    for unwrap in (_from_awslogs, _from_invocation, _from_batch_info, _from_carrier, _from_topic):
        found = unwrap(document, origin, level + 1)
        if found is not None:
            return found
    return None


def _from_awslogs(document: dict[str, Any], origin: str, _: int) -> Found | None:
    fields = document.get("awslogs")
    if len(document) != 1 or not isinstance(fields, dict) or fields.keys() != {"data"}:
        return None
    text = fields["data"]
    if not isinstance(text, str) or not text.startswith(_GZIP_IN_BASE64):
        return None
    try:
        data = from_base64(text)
    except ValueError as problem:
        return iter([Unread(origin, str(problem))])
    return _cloudwatch(data, origin)


def _from_invocation(document: dict[str, Any], origin: str, level: int) -> Found | None:
    if not document.keys() <= _INVOCATION or "requestPayload" not in document:
        if document.keys() <= _INVOCATION and "requestContext" in document:
            why = "is Lambda's record of a failed invocation without its event, which was too large"
            return iter([Unread(origin, why)])
        return None
    found = _from_document(document["requestPayload"], origin, level)
    if found is None:
        return None  # Another function has failed.
    return chain(found, _elsewhere(document, ("requestPayload",), origin))


def _from_batch_info(document: dict[str, Any], origin: str, _: int) -> Found | None:
    """Report the record of a Kinesis batch that Lambda gave up: in a queue it holds no data."""
    info = document.get("KinesisBatchInfo")
    if not isinstance(info, dict):
        return None
    why = (
        f"names records that Lambda gave up: read them from the stream while it keeps them, and "
        f"give them to `doow-serverless replay`: shard {_named(info.get('shardId'))} of "
        f"{_named(info.get('streamArn'))}, from {_named(info.get('startSequenceNumber'))} to "
        f"{_named(info.get('endSequenceNumber'))}"
    )
    return iter([Unread(origin, why)])


def _from_carrier(document: dict[str, Any], origin: str, level: int) -> Found | None:
    """Unwrap a document that SNS or EventBridge carries."""
    if document.get("Type") == "Notification" and isinstance(document.get("Message"), str):
        return _from_document(_object_of(document["Message"]), origin, level)
    if document.get("detail-type") == _EVENT_BRIDGE:
        return _from_document(document.get("detail"), origin, level)
    return None


def _from_topic(document: dict[str, Any], origin: str, level: int) -> Found | None:
    """Report an event of SNS within another document: any subscriber may have logged it."""
    found = [_from_document(one, origin, level) for one in _carried_by_sns(document) or ()]
    if all(one is None for one in found):
        return None
    return iter([Unread(origin, "is an event of SNS, and no document that Lambda puts there")])


def _carried_by_sns(event: object) -> list[object] | None:
    """Return the documents that an event of SNS carries; None if it is none."""
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list) or not records:
        return None
    carried: list[object] = []
    for record in records:
        note = record.get("Sns") if isinstance(record, dict) else None
        if not isinstance(note, dict) or record.get("EventSource") != "aws:sns":
            return None
        text = note.get("Message")
        carried.append(_object_of(text) if isinstance(text, str) else None)
    return carried


# ── Azure ───────────────────────────────────────────────────────────────────────────────────────

_TRACES = "AppTraces"
_OWN_SETTING = "FunctionAppLogs"
_CONSOLE = "Host.Function.Console"
"""The logger to which the Functions host gives what a function prints."""
_LOGGER = ("category", "categoryname")
_DIMENSIONS = ("properties", "customdimensions")
"""Fields that hold the custom dimensions of a trace, in lower case."""


def from_event_hub(body: bytes) -> Found:
    """Unwrap an event to which diagnostic settings of Azure have exported log records.

    The text is ``Message`` or ``properties.message`` of traces of Application Insights, and
    ``properties.message`` of the function app's own logs. A record that names its logger, or has
    custom dimensions that ought to, counts only if the logger is the console.
    https://learn.microsoft.com/azure/azure-functions/functions-monitor-log-analytics

    Args:
        body: JSON, or lines of JSON, with ``records``.
    """
    for document, origin in _documents(body, "the Event Hub's event", _requoted):
        if isinstance(document, Unread):
            yield document
            continue
        records = document.get("records") if isinstance(document, dict) else None
        if not isinstance(records, list):
            yield from _stray(document, origin, "is no export of a diagnostic setting")
            continue
        for number, record in enumerate(records, 1):
            yield from from_diagnostics(record, f"record {number} of {origin}")


def from_diagnostics(record: object, origin: str) -> Found:
    """Unwrap one record of a diagnostic setting, which stood at ``origin``."""
    if not isinstance(record, dict):
        yield from _stray(record, origin, "is no record of a log")
        return
    category = record.get("category") or record.get("Type")
    where = f"{origin}, {_named(category)} of {_named(record.get('resourceId'))}"
    if category not in (_TRACES, _OWN_SETTING, None):
        yield from _stray(record, where, "holds the marker, and is no line that a function wrote")
        return
    fields = {**record, "properties": _properties(record.get("properties"))}
    text, path = _message_of(fields, category)
    others = [logger for logger in _loggers(fields) if logger != _CONSOLE]
    if text is None or others:
        by = f" by logger {_named(others[0])}" if others else ""
        yield from _stray(fields, where, f"holds the marker, and was not printed by a function{by}")
        return
    yield Line(text, where)
    yield from _elsewhere(_without(fields, path), (), where)


def _properties(value: object) -> object:
    """Return the properties of a record: an object, if need be from its JSON."""
    if not isinstance(value, str):
        return value
    try:
        return from_json(value)
    except ValueError:
        restored = restore_properties(value)
    return value if restored is None else restored


def _message_of(fields: dict[str, Any], category: object) -> tuple[str | None, tuple[str, ...]]:
    """Return the text of a record, and the path where it stands."""
    if category == _TRACES and isinstance(fields.get("Message"), str):
        return fields["Message"], ("Message",)
    properties = fields["properties"]
    text = properties.get("message") if isinstance(properties, dict) else None
    return (text if isinstance(text, str) else None), ("properties", "message")


def _loggers(fields: dict[str, Any]) -> Iterator[object]:
    """Yield the categories of loggers that a record names; "" for one that it ought to name.

    Exports write names in different letter cases. Custom dimensions of a trace always hold the
    category if it comes from the host. Of other SDKs, by which an application may log whatever was
    sent to it, there is none.
    """
    others = {name: value for name, value in fields.items() if name != "properties"}
    yield from (value for name, value in others.items() if name.lower() == "categoryname")
    yield from _loggers_of_dimensions(others)
    properties = fields["properties"]
    if isinstance(properties, dict):
        yield from _named_loggers(properties)
        yield from _loggers_of_dimensions(properties)


def _loggers_of_dimensions(fields: dict[str, Any]) -> Iterator[object]:
    for name, value in fields.items():
        if name.lower() in _DIMENSIONS and value is not None:
            yield from _named_loggers(value) or [""]


def _named_loggers(dimensions: object) -> list[object]:
    """Return the categories in custom dimensions, which may be JSON."""
    if isinstance(dimensions, str):
        dimensions = _object_of(dimensions)
    if not isinstance(dimensions, dict):
        return []
    return [value for name, value in dimensions.items() if name.lower() in _LOGGER]


def _without(fields: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    name, *rest = path
    others = {key: item for key, item in fields.items() if key != name}
    if rest:
        others[name] = _without(fields[name], tuple(rest))
    return others


# ── Vercel ──────────────────────────────────────────────────────────────────────────────────────


def from_vercel(body: bytes) -> Found:
    """Unwrap what a log drain of Vercel posts: ``message`` of entries that a function wrote.

    Fields such as ``proxy`` repeat what visitors sent, and are left alone.
    https://vercel.com/docs/drains/reference/logs

    Args:
        body: A JSON array, one object, or lines of JSON.
    """
    for document, origin in _documents(body, "the drain's request", from_json):
        if isinstance(document, Unread):
            yield document
            continue
        for number, entry in enumerate(document if isinstance(document, list) else [document], 1):
            yield from _from_entry(entry, f"entry {number} of {origin}")


def _from_entry(entry: object, origin: str) -> Found:
    if not isinstance(entry, dict):
        yield from _stray(entry, origin, "is no entry of a log drain")
        return
    where = f"log entry {_named(entry.get('id'))} of {_named(entry.get('deploymentId'))}"
    message = entry.get("message")
    is_function = entry.get("source") == "lambda" and entry.get("type") in (None, *_STREAMS)
    if not is_function:
        yield from _stray(entry, where, "holds the marker, and is no line that a function wrote")
        return
    if isinstance(message, str):
        yield Line(message, where)
    yield from _elsewhere(entry, ("message",) if isinstance(message, str) else (), where)


# ── bodies ──────────────────────────────────────────────────────────────────────────────────────


def _documents(body: bytes, origin: str, parse: Callable[[str], Any]) -> Iterator[tuple[Any, str]]:
    """The JSON documents in ``body``, each with its origin; an `Unread` for what is none.

    Args:
        body: One document, or one in each line.
        origin: Of the body.
        parse: Returns the value of a JSON text; raises ValueError.
    """
    try:
        if _MARKER not in unpacked(body):
            return
        if body.startswith(GZIP_MAGIC):
            raise ValueError("is gzip, which its platform does not write")
        text = to_text(body)
    except ValueError as problem:
        yield Unread(origin, str(problem)), origin
        return
    try:
        yield parse(text), origin
        return
    except ValueError:
        lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"line {number} of {origin}" if len(lines) > 1 else origin
        try:
            yield parse(line), where
        except ValueError as problem:
            if MARKER in line:
                yield Unread(where, str(problem)), where


def _requoted(text: str) -> Any:
    """Return the value of JSON ``text``, in which objects may have single quotes for double ones.

    So hosts on Linux write properties. Only single quotes outside of strings are replaced: the
    text of another record stays as it is.
    """
    try:
        return from_json(text)
    except ValueError:
        if "{'" not in text:
            raise
    restored = restore_quotes(text)
    value, end = next_json(restored, 0, unique_names=True)
    if end < len(restored):
        raise ValueError("is JSON followed by something else")
    return value

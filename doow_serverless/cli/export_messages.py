"""Records of streams, messages of queues and documents of failed invocations, as tools export them.

They are unwrapped as the relay unwraps them. Also what the modules for exports share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from doow_serverless._frames.envelopes import (
    Line,
    Unread,
    from_diagnostics,
    from_kinesis,
    from_logs_event,
    from_sqs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Fields(NamedTuple):
    """An object that an export made of a line which is JSON.

    Attributes:
        fields: The whole object.
        origin: Where it stood, in words for an operator.
    """

    fields: dict[str, Any]
    origin: str


if TYPE_CHECKING:
    Found = Line | Fields | Unread


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────


def objects(value: Any, name: str, origin: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the objects in the list that is the field ``name``, and their places."""
    listed = value.get(name)
    for at, each in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(each, dict):
            yield each, f"{origin}, {name}[{at}]"


def all_objects(value: Any) -> bool:
    """Return whether ``value`` is a list of objects."""
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def line_of(value: Any, origin: str) -> Iterator[Line]:
    """Yield ``value`` if it is text."""
    if isinstance(value, str):
        yield Line(value, origin)


def has_objects(name: str) -> Callable[[dict[str, Any]], bool]:
    """Return a function that tells objects with a list of objects in the field ``name``."""
    return lambda value: all_objects(value.get(name))


def _placed(found: Iterable[Line | Unread], place: str) -> Iterator[Found]:
    """Yield ``found`` with the place in the file before each origin."""
    for one in found:
        yield one._replace(origin=f"{place}: {one.origin}")


# ── streams, queues, failed invocations ─────────────────────────────────────────────────────────


def is_stream(value: dict[str, Any]) -> bool:
    """Return whether it is the answer of GetRecords."""
    records = value.get("Records")
    return all_objects(records) and all("Data" in one for one in records or ())


def stream(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what the records of a stream hold."""
    for record, place in objects(value, "Records", origin):
        fields = {"data": record["Data"], "sequenceNumber": record.get("SequenceNumber")}
        yield from _placed(from_kinesis({"kinesis": fields}), place)


def messages(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what the messages of SQS hold, as ReceiveMessage returns them."""
    for message, place in objects(value, "Messages", origin):
        fields = {"body": message.get("Body"), "messageId": message.get("MessageId")}
        yield from _placed(from_sqs(fields), place)


def is_for_lambda(value: dict[str, Any]) -> bool:
    """Return whether it is an event of Lambda, or a document about an invocation that failed."""
    return (
        value.keys() == {"awslogs"}
        or "requestPayload" in value
        or "KinesisBatchInfo" in value
        or (value.get("Type") == "Notification" and "TopicArn" in value)
        or ("detail-type" in value and "detail" in value)
        or _is_event(value.get("Records"))
    )


def _is_event(records: Any) -> bool:
    return all_objects(records) and all(
        "eventSource" in one or "EventSource" in one for one in records
    )


def for_lambda(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what such a document holds."""
    yield from _placed(from_logs_event(value), origin)


def diagnostics(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the texts in records of Azure's diagnostic settings, as an Event Hub gets them."""
    for record, place in objects(value, "records", origin):
        yield from from_diagnostics(record, place)


def is_diagnostic(value: dict[str, Any]) -> bool:
    """Return whether it is one such record, as a storage account gets it."""
    return {"category", "properties", "resourceId"} <= value.keys()


def diagnostic(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the text of one such record."""
    yield from from_diagnostics(value, origin)

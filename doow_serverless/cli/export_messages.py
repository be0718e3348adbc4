"""The messages of streams and queues, and Lambda's documents of failed invocations, for replay.

Also the kinds of findings in all exports, and what the modules that look for them share.
"""

from __future__ import annotations

from base64 import b64decode
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Line(NamedTuple):
    """A text of a log without its envelope, and where it stood, in words for an operator."""

    text: str
    origin: str


class Fields(NamedTuple):
    """An object that an export made of a line which is JSON."""

    fields: dict[str, Any]
    origin: str


class Nested(NamedTuple):
    """The content of a message or a record: frames, or documents of the named kinds."""

    content: str | bytes
    origin: str
    kinds: tuple[str, ...]


class Unread(NamedTuple):
    """Input that could not be unwrapped although it may hold usage.

    Attributes:
        origin: Where it stood, in words for an operator.
        why: The reason, in words that continue "the input ".
    """

    origin: str
    why: str


if TYPE_CHECKING:
    Found = Line | Fields | Nested | Unread


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


_IN_STREAMS = ("subscription", "container")
_IN_QUEUES = ("subscription event", "stream", "failure", "notification")
"""The kinds of documents that records and messages hold, beside lines."""


def _base64(value: Any, origin: str) -> Iterator[Nested | Unread]:
    if isinstance(value, str):
        try:
            yield Nested(b64decode(value, validate=True), origin, _IN_STREAMS)
        except ValueError:
            yield Unread(origin, "is no base64")


def has_objects(name: str) -> Callable[[dict[str, Any]], bool]:
    """Return a function that tells objects with a list of objects in the field ``name``."""
    return lambda value: all_objects(value.get(name))


# ── streams, queues, failed invocations ─────────────────────────────────────────────────────────


def from_kinesis(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the records of GetRecords, and of events of Lambda."""
    for record, place in objects(value, "Records", origin):
        yield from _base64(record.get("Data"), f"{place}.Data")
        if isinstance(record.get("kinesis"), dict):
            yield from _base64(record["kinesis"].get("data"), f"{place}.kinesis.data")


def is_stream(value: dict[str, Any]) -> bool:
    """Return whether it is the answer of GetRecords, or an event of Lambda from Kinesis."""
    records = value.get("Records")
    return all_objects(records) and all("Data" in o or "kinesis" in o for o in records or ())


def from_queue(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the messages of events of Lambda, from SQS and SNS."""
    for record, place in objects(value, "Records", origin):
        sns = record.get("Sns")
        if isinstance(record.get("body"), str):
            yield Nested(record["body"], f"{place}.body", _IN_QUEUES)
        if isinstance(sns, dict) and isinstance(sns.get("Message"), str):
            yield Nested(sns["Message"], f"{place}.Sns.Message", _IN_QUEUES)


def received(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the messages of SQS, as ReceiveMessage returns them."""
    for message, place in objects(value, "Messages", origin):
        if isinstance(message.get("Body"), str):
            yield Nested(message["Body"], f"{place}.Body", _IN_QUEUES)


def is_awslogs(value: dict[str, Any]) -> bool:
    """Return whether it is an event of Lambda from CloudWatch Logs."""
    return value.keys() == {"awslogs"} and isinstance(value["awslogs"], dict)


def awslogs(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the subscription in an event of CloudWatch Logs."""
    yield from _base64(value["awslogs"].get("data"), f"{origin}, awslogs.data")


def is_failure(value: dict[str, Any]) -> bool:
    """Return whether it is a document of Lambda's destinations for failed invocations."""
    return {"requestContext", "requestPayload"} <= value.keys() or (
        value.keys() <= {"requestPayload", "version"} and "requestPayload" in value
    )


def failure(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what the event of a failed invocation holds, if it came from a log."""
    payload, place = value["requestPayload"], f"{origin}, requestPayload"
    if isinstance(payload, dict) and is_awslogs(payload):
        yield from awslogs(payload, place)
    elif isinstance(payload, dict):
        # Messages of other functions are somebody else's text.
        yield from from_kinesis(payload, place)


def is_by_bridge(value: dict[str, Any]) -> bool:
    """Return whether it is such a document in an event of EventBridge."""
    detail = value.get("detail")
    return "detail-type" in value and isinstance(detail, dict) and is_failure(detail)


def by_bridge(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what such a document holds."""
    yield from failure(value["detail"], f"{origin}, detail")


def is_notification(value: dict[str, Any]) -> bool:
    """Return whether it is a message of SNS."""
    return value.get("Type") == "Notification" and "TopicArn" in value and "Message" in value


def notification(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield the content of a message of SNS."""
    if isinstance(value["Message"], str):
        yield Nested(value["Message"], f"{origin}, Message", _IN_QUEUES)

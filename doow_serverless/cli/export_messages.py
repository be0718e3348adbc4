"""Records of streams, messages of queues and documents of failed invocations, as tools export them.

They are unwrapped as the relay unwraps them. Also what the modules for exports share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from doow_serverless._frames.envelopes import (
    Line,
    Unread,
    from_kinesis,
    from_logs_event,
    from_sqs,
)
from doow_serverless._frames.format import MARKER

from .export_shapes import Shape, listing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class Fields(NamedTuple):
    """An object that an export made of a line which is JSON.

    Attributes:
        fields: The whole object.
        origin: Where it stood, in words for an operator.
    """

    fields: dict[str, Any]
    origin: str


class Chunk(NamedTuple):
    """A line of a container, or a chunk of one.

    Attributes:
        text: The text of the chunk.
        origin: Where it stood, in words for an operator.
        stream: The name of the stream that it was written to.
        is_last: Whether the line ends with it.
    """

    text: str
    origin: str
    stream: str
    is_last: bool


if TYPE_CHECKING:
    Found = Line | Fields | Chunk | Unread


BOTO3 = "ResponseMetadata"
"""A field that boto3 adds to the answers of AWS.
https://docs.aws.amazon.com/boto3/latest/guide/error-handling.html
"""

# ── helpers ─────────────────────────────────────────────────────────────────────────────────────


def objects(value: Any, name: str, origin: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the objects in the list that is the field ``name``, and their places."""
    listed = value.get(name)
    for at, each in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(each, dict):
            yield each, f"{origin}, {name}[{at}]"


def line_of(value: Any, origin: str) -> Iterator[Line]:
    """Yield ``value`` if it is text."""
    if isinstance(value, str):
        yield Line(value, origin)


def _placed(found: Iterable[Line | Unread], place: str) -> Iterator[Found]:
    """Yield ``found`` with the place in the file before each origin."""
    for one in found:
        yield one._replace(origin=f"{place}: {one.origin}")


# ── streams and queues ──────────────────────────────────────────────────────────────────────────

# https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html
is_stream = listing(
    Shape({"Records": list, "MillisBehindLatest": int}, f"NextShardIterator ChildShards {BOTO3}"),
    "Records",
    Shape(
        {"SequenceNumber": str, "Data": str, "PartitionKey": str},
        "ApproximateArrivalTimestamp EncryptionType",
    ),
)
"""Tells the answer of GetRecords."""


def stream(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what the records of a stream hold."""
    for record, place in objects(value, "Records", origin):
        fields = {"data": record["Data"], "sequenceNumber": record["SequenceNumber"]}
        yield from _placed(from_kinesis({"kinesis": fields}), place)


# https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
is_messages = listing(
    Shape({"Messages": list}, BOTO3),
    "Messages",
    Shape(
        {"MessageId": str, "ReceiptHandle": str, "MD5OfBody": str, "Body": str},
        "Attributes MessageAttributes MD5OfMessageAttributes",
    ),
)
"""Tells the answer of ReceiveMessage."""


def messages(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what the messages of SQS hold, as ReceiveMessage returns them."""
    for message, place in objects(value, "Messages", origin):
        fields = {"body": message["Body"], "messageId": message["MessageId"]}
        yield from _placed(from_sqs(fields), place)


# ── failed invocations ──────────────────────────────────────────────────────────────────────────

# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
_INVOCATION = Shape(
    {"version": str, "timestamp": str, "requestContext": dict, "requestPayload": dict},
    "responseContext responsePayload",
)
# https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html
_BATCH = Shape(
    {"version": str, "timestamp": str, "requestContext": dict, "KinesisBatchInfo": dict},
    "responseContext payload",
)
# https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
_NOTIFICATION = Shape(
    {"Type": str, "MessageId": str, "TopicArn": str, "Message": str, "Timestamp": str},
    "Subject SignatureVersion Signature SigningCertURL UnsubscribeURL MessageAttributes",
)
# https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html
_BRIDGED = Shape(
    {"id": str, "detail-type": str, "source": str, "account": str, "time": str, "detail": dict},
    "version region resources",
)


def is_for_lambda(value: dict[str, Any]) -> bool:
    """Return whether it is a document about an invocation that failed."""
    if _INVOCATION.fits(value) or _BATCH.fits(value):
        return isinstance(value["requestContext"].get("functionArn"), str)
    if _NOTIFICATION.fits(value):
        return bool(value["Type"] == "Notification")
    return _BRIDGED.fits(value) and value["source"] == "lambda"


def for_lambda(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what such a document holds."""
    yield from _placed(from_logs_event(value), origin)


# ── other objects that pack lines ───────────────────────────────────────────────────────────────

_ALTERED = (
    "holds records packed as AWS packs them, but is no export of a tool as it was written, so any "
    "program may have written it: export the same again, and leave no field out"
)


def is_altered(value: dict[str, Any]) -> bool:
    """Return whether it may be a part of such a document, or an event of Lambda by itself.

    Functions log their events, and lines may be packed in them so that no marker is seen.
    """
    names = {"Records", "Messages", "awslogs", "requestPayload", "KinesisBatchInfo", "Message"}
    return not names.isdisjoint(value) or "detail-type" in value


def altered(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Report such an object if it holds usage."""
    found: list[Line | Unread] = []
    for record, _ in objects(value, "Records", ""):
        found += from_kinesis({"kinesis": {"data": record.get("Data")}})
    for message, _ in objects(value, "Messages", ""):
        found += from_sqs({"body": message.get("Body")})
    found += from_logs_event(value)
    if any(isinstance(one, Line) and MARKER in one.text for one in found):
        yield Unread(origin, _ALTERED)

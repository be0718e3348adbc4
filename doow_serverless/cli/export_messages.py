"""Records of streams, messages of queues and documents of failed invocations, as tools export them.

They are unwrapped as the relay unwraps them. Also what the modules for exports share.
"""

from __future__ import annotations

import json
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
    Shape({"Records": list}, f"MillisBehindLatest NextShardIterator ChildShards {BOTO3}"),
    "Records",
    Shape(
        {"SequenceNumber": str, "Data": str},
        "PartitionKey ApproximateArrivalTimestamp EncryptionType",
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
        {"Body": str},
        "MessageId ReceiptHandle MD5OfBody Attributes MessageAttributes MD5OfMessageAttributes",
    ),
)
"""Tells the answer of ReceiveMessage."""


def messages(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what the messages of SQS hold, as ReceiveMessage returns them."""
    for message, place in objects(value, "Messages", origin):
        fields = {"body": message["Body"], "messageId": message.get("MessageId")}
        yield from _placed(from_sqs(fields), place)


# ── failed invocations ──────────────────────────────────────────────────────────────────────────

# https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html
_EVENT = Shape({"awslogs": dict})
_INVOCATION = Shape(
    {"requestPayload": dict}, "version timestamp requestContext responseContext responsePayload"
)
# https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html
_BATCH = Shape(
    {"KinesisBatchInfo": dict}, "version timestamp requestContext responseContext payload"
)
# https://docs.aws.amazon.com/sns/latest/dg/sns-message-and-json-formats.html
_NOTIFICATION = Shape(
    {"Type": str, "Message": str},
    "MessageId TopicArn Timestamp Subject SignatureVersion Signature SigningCertURL "
    "UnsubscribeURL MessageAttributes",
)
# https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html
_BRIDGED = Shape(
    {"detail-type": str, "detail": dict}, "id source account time version region resources"
)


def is_for_lambda(value: dict[str, Any]) -> bool:
    """Return whether it is a document about an invocation of the relay that failed."""
    shapes = (_EVENT, _INVOCATION, _BATCH, _NOTIFICATION, _BRIDGED)
    return any(shape.fits(value) for shape in shapes)


def for_lambda(value: dict[str, Any], origin: str) -> Iterator[Found]:
    """Yield what such a document holds."""
    records = _records_of(value.get("payload")) if "KinesisBatchInfo" in value else None
    if records is None:
        yield from _placed(from_logs_event(value), origin)
        return
    for at, record in enumerate(records):
        yield from _placed(from_kinesis(record), f"{origin}, payload, Records[{at}]")


def _records_of(payload: object) -> list[Any] | None:
    """Return the records of a batch that Lambda has put into S3; None if it has put none there."""
    try:
        event = json.loads(payload) if isinstance(payload, str) else payload
    except (ValueError, RecursionError):
        return None
    records = event.get("Records") if isinstance(event, dict) else None
    return records if isinstance(records, list) else None


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
        inner = record.get("kinesis")
        data = inner.get("data") if isinstance(inner, dict) else record.get("Data")
        found += from_kinesis({"kinesis": {"data": data}})
    for message, _ in objects(value, "Messages", ""):
        found += from_sqs({"body": message.get("Body")})
    found += from_logs_event(value)
    if any(isinstance(one, Line) and MARKER in one.text for one in found):
        yield Unread(origin, _ALTERED)

"""What names the work that an event of AWS brings, and names it again when it comes again."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, TypeAlias

    Fields: TypeAlias = dict[str, Any]
    # What every record of the kind has, and what tells it apart further where it is there.
    Kind: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]

_LISTS = ("Records", "records", "messages", "rmqMessagesByQueue", "events", "tasks")
"""Where an event keeps its records: a list, or a mapping of partitions or queues to lists."""

_KINDS: tuple[Kind, ...] = (
    # After a "^", of the event around. Each is as its page at https://docs.aws.amazon.com/lambda
    # shows.
    (("messageId",), ()),  # SQS: with-sqs.html
    (("eventID",), ("eventSourceARN",)),  # Kinesis and DynamoDB number within each stream.
    (("Sns.MessageId",), ("EventSubscriptionArn",)),  # with-sns.html
    # A new version of an object, and each change of one, has a sequencer: with-s3.html
    (
        ("s3.bucket.name", "s3.object.key", "s3.object.sequencer", "eventName"),
        ("s3.object.versionId",),
    ),
    (("ses.mail.messageId",), ()),  # services-ses.html
    (("topic", "partition", "offset"), ("^eventSourceArn",)),  # Kafka: with-msk.html
    (("messageID",), ("^eventSourceArn",)),  # ActiveMQ: with-mq.html
    # RabbitMQ, where whoever sends names messages.
    (("basicProperties.messageId",), ("^eventSourceArn",)),
    (("event._id._data",), ("^eventSourceArn",)),  # DocumentDB: with-documentdb.html
    (("recordId",), ("^deliveryStreamArn",)),  # services-kinesisfirehose.html
    (("taskId", "s3Key"), ("s3VersionId", "^job.id")),  # services-s3-batch.html
    (("eventId", "codecommit.references"), ("eventSourceARN",)),  # services-codecommit.html
)
_WHOLE: tuple[Kind, ...] = (
    # EventBridge, also as Powertools' parser spells it: services-eventbridge.html (the schema of
    # events: https://docs.aws.amazon.com/eventbridge/latest/ref/overiew-event-structure.html).
    (("id", "source", "detail-type"), ("account",)),
    (("id", "source", "detail_type"), ("account",)),
)
"""As `_KINDS`, of events that are what one record is elsewhere."""
_NUMBERS = ("partition", "offset")
_LIBRARIES = ("aws_lambda_powertools.", "chalice.")
"""Whose objects stand for an event: they keep it, or are its fields."""


def work_of(event: object) -> str | None:
    """What names all that ``event`` brings; None where it, or one of its records, has no name.

    Args:
        event: The dict that Lambda passes, or a list of records, as EventBridge Pipes does; or what
            Powertools or Chalice makes of one. Anything else has no name, and none of its code is
            run: the application's own ``get`` may do anything.
    """
    if isinstance(event, list):
        return _all(event, {})
    fields = _fields(event)
    for name in _LISTS:
        records = dict.get(fields, name)
        if isinstance(records, (list, tuple)) and records:
            return _all(records, fields)
        if isinstance(records, dict) and records:
            return _all([each for some in records.values() for each in _listed(some)], fields)
    return _name(fields, {}, _WHOLE)[0]


def record_name(record: object) -> str | None:
    """What names one record, of any kind of which an event brings several; None if nothing does.

    Args:
        record: As the items of an event for `work_of`, or an event of EventBridge.
    """
    return _name(_fields(record), {}, (*_KINDS, *_WHOLE))[0]


def _all(records: Any, event: Fields) -> str | None:
    """The names of all, in an order of their own; None where one has none, or there are none."""
    names: list[str] = []
    kinds: tuple[Kind, ...] = _KINDS
    for record in records:
        name, kind = _name(_fields(record), event, kinds)
        if name is None:
            return None
        names.append(name)
        kinds = (kind, *_KINDS)  # Most probably the next one is of the same.
    return "records:" + ",".join(sorted(names)) if names else None


def _name(record: Fields, event: Fields, kinds: tuple[Kind, ...]) -> tuple[str | None, Kind]:
    """What names ``record``, and of which kind it is; None, and any kind, for none of them."""
    for kind in kinds:
        required, more = kind
        parts = [_text(record, event, path) for path in required]
        if None not in parts:
            parts += [_text(record, event, path) for path in more]
            return "/".join(filter(None, parts)), kind
    return None, kinds[0]


def _text(record: Fields, event: Fields, path: str) -> str | None:
    """What stands at ``path``, if that can be a part of a name; "" for a list or mapping."""
    found: Any = record
    if path[0] == "^":
        found, path = event, path[1:]
    for name in path.split("."):
        found = dict.get(_fields(found), name)
    if isinstance(found, str) or (path in _NUMBERS and type(found) is int):
        return str(found) or None
    return "" if isinstance(found, (dict, list)) else None


def _listed(value: Any) -> Iterator[Any]:
    return iter(value if isinstance(value, (list, tuple)) else ())


def _fields(value: Any) -> Fields:
    """The fields of an event or a part of one, by their names; none of what is no such thing."""
    if isinstance(value, dict):
        return value
    if any(kind.__module__.startswith(_LIBRARIES) for kind in type(value).__mro__):
        value = getattr(value, "__dict__", None)
        for inner in ("_data", "_event_dict"):  # Powertools' data classes, and Chalice's events.
            if isinstance(value, dict) and isinstance(value.get(inner), dict):
                return value[inner]  # type: ignore[no-any-return]  # as seen
    return value if isinstance(value, dict) else {}

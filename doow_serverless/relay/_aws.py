"""The relay on AWS Lambda: a Kinesis stream, a log group's subscription, or a queue.

Each handler unwraps what Lambda hands over, and says in Lambda's own way what it must bring again.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from doow_serverless._frames.envelopes import from_kinesis, from_logs_event, from_sqs
from doow_serverless._frames.reader import Part

from ._relay import LEFT_S, Relay, Undelivered, shared
from ._window import Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless._frames.envelopes import Line, Unread
    from doow_serverless._frames.reader import Damage
    from doow_serverless._sealing import Batch

    Failures = dict[str, Any]


# ── Kinesis ─────────────────────────────────────────────────────────────────────────────────────


def kinesis_handler(event: dict[str, Any], context: Any) -> Failures:
    """Forward the usage in a Kinesis data stream to Doow; a Lambda function's whole handler.

    A record may be a message of CloudWatch Logs, a line, or an object of Fluent Bit or FireLens,
    each also aggregated (KPL).

    With a tumbling window the relay gathers the batches of ``delivery="log"``, folds their events
    over the window (``DOOW_TRACK_FOLD``), and delivers them when it closes, under ids that derive
    from the gathered batches. Dead letters and idempotent work go at once, under their own ids.
    Without a window everything goes at once, under its own id.

    Not guaranteed: a line that CloudWatch delivers into two windows counts once only if the same
    process handles both.

    Args:
        event: An event of Lambda's event source mapping for Kinesis.
        context: Lambda's context.

    Returns:
        The records to be delivered again, for ``ReportBatchItemFailures``, and the window's state.

    Raises:
        Undelivered: Lambda has to call again, at the end of a window without records.
        ConfigurationError: The API key is missing, a log key cannot be read, or the endpoint is
            wrong.
    """
    relay = shared()
    if "window" in event:
        return _windowed(relay, event, _seconds_left(context))
    sources = [(_place(one), from_kinesis(one)) for one in event["Records"]]
    failed = _deliver_each(relay, sources, _seconds_left(context), is_kept=False)
    # Lambda comes again from the first on.
    return _failures([place for place, _ in sources if place in failed][:1])


def _place(record: dict[str, Any]) -> str:
    return str(record["kinesis"]["sequenceNumber"])


def _windowed(relay: Relay, event: dict[str, Any], left_s: float) -> Failures:
    records = event.get("Records") or []
    state = event.get("state") or {}
    window = Window(
        state,
        f"{event.get('eventSourceARN')} {event.get('shardId')} {event['window'].get('start')}",
        _place(records[0]) if records else "",
        relay.config.fold,
    )
    is_over = bool(event.get("isFinalInvokeForWindow") or event.get("isWindowTerminatedEarly"))
    batches = _gathered(relay, window, records)
    if is_over:
        batches += window.seal()
    try:
        relay.deliver(batches, left_s)
    except Undelivered:
        if not records:
            raise
        return {"state": state, **_failures([_place(records[0])])}
    if is_over:
        relay.learn(window.known, window.name)
    rest = window.assembly.begun() if is_over else window.leftover_parts()
    relay.report_incomplete(relay.keep_parts(rest))
    return {"state": {} if is_over else window.state(), **_failures([])}


def _gathered(relay: Relay, window: Window, records: list[dict[str, Any]]) -> list[Batch]:
    """Let the window take in ``records``; return the batches that must leave now."""
    intake = relay.intake()
    batches = []
    for record in records:
        for frame in intake.read(from_kinesis(record)):
            relay.note_split(frame)
            for one in (*relay.earlier_parts(frame), frame):
                batches += window.take(one, partial(relay.knows, outside=window.name))
    intake.report()
    relay.report_damage(window.assembly)
    return batches


# ── what wraps single lines ─────────────────────────────────────────────────────────────────────


def logs_handler(event: dict[str, Any], context: Any) -> None:
    """Forward the usage in a CloudWatch Logs subscription to Doow; a whole handler.

    Args:
        event: ``{"awslogs": {"data": …}}``, or Lambda's document of such an invocation that failed.
        context: Lambda's context.

    Raises:
        Undelivered: Lambda has to call again. It does so twice; then the event goes to the
            on-failure destination, if the function has one.
        ConfigurationError: See :func:`kinesis_handler`.
    """
    relay = shared()
    intake = relay.intake()
    joined = relay.join(intake.read(from_logs_event(event)))
    intake.report()
    relay.report_incomplete(joined.new)
    relay.deliver([letter.batch for letter in joined.letters], _seconds_left(context))


def sqs_handler(event: dict[str, Any], context: Any) -> Failures:
    """Forward the usage in the messages of a queue to Doow; a Lambda function's whole handler.

    A body is a line, or a document that Lambda puts into queues for failed invocations of
    :func:`logs_handler`, also through SNS and EventBridge.

    A message that holds a part of a batch stays in the queue until the rest has come. A message
    that may hold usage, and of which nothing can be read, stays until it goes to the dead-letter
    queue.

    Args:
        event: What Lambda reads from SQS.
        context: Lambda's.

    Returns:
        The messages that have to come again, for ``ReportBatchItemFailures``.

    Raises:
        ConfigurationError: See :func:`kinesis_handler`.
    """
    sources = [(str(one["messageId"]), from_sqs(one)) for one in event["Records"]]
    failed = _deliver_each(shared(), sources, _seconds_left(context), is_kept=True)
    return _failures([place for place, _ in sources if place in failed])


def _deliver_each(
    relay: Relay,
    sources: list[tuple[str, Iterator[Line | Unread]]],
    left_s: float,
    *,
    is_kept: bool,
) -> set[str]:
    """Deliver the batches in ``sources``; return the places of those that have to come again.

    Args:
        relay: The relay.
        sources: Pairs of a place, and of the lines that were there.
        left_s: Seconds.
        is_kept: Whether the platform keeps a source that comes again beside the others: then a part
            of a batch comes again until the batch is whole, and so does a source that may hold
            usage and of which nothing could be read: in the end its dead-letter queue has it.
    """
    intake = relay.intake()
    frames: list[Part | Damage] = []
    places: dict[str | None, set[str]] = {}
    again = set()
    for place, unwrapped in sources:
        before = intake.left
        found = list(intake.read(unwrapped))
        frames += found
        for one in found:
            places.setdefault(one.batch_id, set()).add(place)
        if is_kept and not any(isinstance(one, Part) for one in found) and intake.left > before:
            again.add(place)
    intake.report()
    joined = relay.join(frames)
    if not is_kept:
        relay.report_incomplete(joined.new)
    # A damaged batch may be whole in another message, or it ends in the dead-letter queue.
    missing: set[str] = set()
    if is_kept:
        missing = {*(part.batch_id for part in joined.begun), *joined.damaged}
    try:
        relay.deliver([letter.batch for letter in joined.letters], left_s)
    except Undelivered as problem:
        missing |= problem.batch_ids
    return again.union(*(places.get(batch_id, ()) for batch_id in missing))


def _failures(places: list[str]) -> Failures:
    return {"batchItemFailures": [{"itemIdentifier": place} for place in places]}


def _seconds_left(context: Any) -> float:
    left_ms: float = context.get_remaining_time_in_millis()
    return max(0.0, left_ms / 1e3 - LEFT_S)

"""The relay on AWS Lambda: a Kinesis stream, a log group's subscription, or a queue.

Each handler unwraps what Lambda hands over, and says in Lambda's own way what it must bring again.
"""

from __future__ import annotations

from base64 import b64decode
from typing import Any

from doow_serverless._frames.format import BY_LOG
from doow_serverless._frames.reader import Damage
from doow_serverless._recording.ids import is_random

from ._records import records_in
from ._relay import LEFT_S, Relay, Undelivered, shared
from ._window import Window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless._frames.assembly import DeadLetter
    from doow_serverless._frames.reader import Part

    Failures = dict[str, Any]


# ── Kinesis ─────────────────────────────────────────────────────────────────────────────────────


def kinesis_handler(event: dict[str, Any], context: Any) -> Failures:
    """Bring the records of a Kinesis data stream to Doow; a Lambda function's whole handler.

    With a tumbling window it gathers what ``delivery="log"`` has written, folds it over the window
    (``DOOW_TRACK_FOLD``), and delivers it when the window closes, under ids that derive from shard
    and window. Dead letters, which their function may still deliver, go at once, under their own
    ids. Without a window everything goes at once, under the ids that it came with.

    Args:
        event: What Lambda reads from the stream: CloudWatch Logs subscriptions, or lines.
        context: Lambda's.

    Returns:
        What has to come again, for ``ReportBatchItemFailures``, and the window's state.

    Raises:
        Undelivered: Lambda has to call once more, at the end of a window without records.
        ConfigurationError: The key is missing, or the endpoint is wrong.
    """
    relay = shared()
    if "window" in event:
        return _windowed(relay, event, _seconds_left(context))
    sources = [(_place(one), _data(one)) for one in event["Records"]]
    failed = _deliver_each(relay, sources, _seconds_left(context), is_kept=False)
    # Lambda comes again from the first on.
    return _failures([place for place, _ in sources if place in failed][:1])


def _place(record: dict[str, Any]) -> str:
    return str(record["kinesis"]["sequenceNumber"])


def _data(record: dict[str, Any]) -> bytes:
    return b64decode(record["kinesis"]["data"])


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
    letters, begun = relay.join(
        [
            *(one for line in window.parts for one in records_in(line)),
            *(one for record in records for one in records_in(_data(record))),
        ]
    )
    batches = [letter.batch for letter in letters if not _gathered(relay, window, letter)]
    if is_over or window.is_full:
        batches += window.seal()
    try:
        relay.deliver(batches, left_s)
    except Undelivered:
        if not records:
            raise
        return {"state": state, **_failures([_place(records[0])])}
    if is_over:
        relay.learn(window.known)
        relay.wait_for_rest(begun, is_kept=False)
        return {"state": {}, **_failures([])}
    relay.wait_for_rest(window.keep(begun), is_kept=False)
    return {"state": window.state(), **_failures([])}


def _gathered(relay: Relay, window: Window, letter: DeadLetter) -> bool:
    """Whether the events of a batch became the window's; else it goes under its own id.

    So goes what may come, or be delivered, once more at another time, when only Doow knows it
    again: dead letters, which their function keeps, and work that is done again; and what came in
    parts, which may come together otherwise when this invocation is done again.
    """
    if letter.reason != BY_LOG or letter.parts > 1 or not is_random(letter.batch.id):
        return False
    return relay.knows(letter.batch.id) or window.add(letter.batch)


# ── what wraps single lines ─────────────────────────────────────────────────────────────────────


def logs_handler(event: dict[str, Any], context: Any) -> None:
    """Bring what a CloudWatch Logs subscription hands to Lambda to Doow; a whole handler.

    Args:
        event: ``{"awslogs": {"data": …}}``.
        context: Lambda's.

    Raises:
        Undelivered: Lambda has to call again: it does so twice, and then has an on-failure
            destination, where the function is given one.
        ConfigurationError: As of :func:`kinesis_handler`.
    """
    relay = shared()
    letters, begun = relay.join(records_in(b64decode(event["awslogs"]["data"])))
    relay.wait_for_rest(begun, is_kept=False)
    relay.deliver([letter.batch for letter in letters], _seconds_left(context))


def sqs_handler(event: dict[str, Any], context: Any) -> Failures:
    """Bring records in the messages of a queue to Doow; a Lambda function's whole handler.

    A message that holds a part of a batch stays in the queue until the rest has come.

    Args:
        event: What Lambda reads from SQS.
        context: Lambda's.

    Returns:
        The messages that have to come again, for ``ReportBatchItemFailures``.

    Raises:
        ConfigurationError: As of :func:`kinesis_handler`.
    """
    sources = [(str(one["messageId"]), str(one["body"])) for one in event["Records"]]
    failed = _deliver_each(shared(), sources, _seconds_left(context), is_kept=True)
    return _failures([place for place, _ in sources if place in failed])


def _deliver_each(
    relay: Relay, sources: list[tuple[str, Any]], left_s: float, *, is_kept: bool
) -> set[str]:
    """Deliver what ``sources`` hold; the places of those that have to come again.

    Args:
        relay: The relay.
        sources: Pairs of a place, and of what was there.
        left_s: Seconds.
        is_kept: Whether a part of a batch has to come again until it is whole.
    """
    places: dict[str, set[str]] = {}

    def records() -> Iterator[Part | Damage]:
        for place, data in sources:
            for one in records_in(data):
                if not isinstance(one, Damage):
                    places.setdefault(one.batch_id, set()).add(place)
                yield one

    letters, begun = relay.join(records())
    relay.wait_for_rest(begun, is_kept=is_kept)
    missing = {part.batch_id for part in begun} if is_kept else set()
    try:
        relay.deliver([letter.batch for letter in letters], left_s)
    except Undelivered as problem:
        missing |= problem.batch_ids
    return {place for batch_id in missing for place in places.get(batch_id, ())}


def _failures(places: list[str]) -> Failures:
    return {"batchItemFailures": [{"itemIdentifier": place} for place in places]}


def _seconds_left(context: Any) -> float:
    left_ms: float = context.get_remaining_time_in_millis()
    return max(0.0, left_ms / 1e3 - LEFT_S)

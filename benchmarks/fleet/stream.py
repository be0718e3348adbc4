"""The stand-in for CloudWatch's subscription, a Kinesis shard, and Lambda's tumbling windows.

All are of simulated time, and as AWS documents them: a subscription delivers at least once, an
invocation that fails comes again with the same records and the same state, one whose answer is lost
as well, and the last of a window has no records.
https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from doow_serverless._process.clock import iso_time

from .clock import EPOCH

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Handler = Callable[[dict[str, Any], "Context"], dict[str, Any]]

WINDOW_S = 60.0
MOST_RECORDS = 100
"""Records that Lambda hands to an invocation at the most, as `relay.yaml` has it."""
MAX_STATE = 1_000_000
"""Characters of a window's state, as JSON."""
ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/usage"
SHARD = "shardId-000000000000"


class Context:
    """Lambda's context, as far as a relay asks it."""

    def __init__(self, left_s: float = 60.0) -> None:
        self._left_s = left_s

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds that a relay's invocation may take."""
        return int(self._left_s * 1_000)


@dataclass(frozen=True)
class Line:
    """A line of a log: when it was written, and the batch that it completes."""

    at: float
    text: str
    batch_id: str


@dataclass(frozen=True)
class Record:
    """A record of the shard: when it came, its number, its data, and the lines in it."""

    at: float
    number: int
    data: bytes
    lines: tuple[Line, ...]


def packed(log_stream: str, lines: Sequence[Line]) -> bytes:
    """What CloudWatch Logs puts into one record: lines of one log stream, in gzip."""
    events = [
        {"id": f"{at:056}", "timestamp": int((EPOCH + line.at) * 1e3), "message": line.text}
        for at, line in enumerate(lines)
    ]
    said = {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": "/aws/lambda/api",
        "logStream": log_stream,
        "subscriptionFilters": ["usage"],
        "logEvents": events,
    }
    return gzip.compress(json.dumps(said).encode(), 6)


def shown(data: bytes, number: int, at: float) -> dict[str, Any]:
    """A record as Lambda shows it to a function."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "1",
            "sequenceNumber": str(number),
            "data": b64encode(data).decode(),
            "approximateArrivalTimestamp": EPOCH + at,
        },
        "eventSource": "aws:kinesis",
        "eventID": f"{SHARD}:{number}",
        "eventName": "aws:kinesis:record",
        "eventSourceARN": ARN,
    }


def event_of(
    records: Sequence[dict[str, Any]],
    start: float,
    state: Mapping[str, Any],
    *,
    is_final: bool,
    shard: str = SHARD,
) -> dict[str, Any]:
    """What Lambda hands to the function: records of a window, and what is known of it so far."""
    return {
        "Records": list(records),
        "window": {
            "start": iso_time(int((EPOCH + start) * 1e3)),
            "end": iso_time(int((EPOCH + start + WINDOW_S) * 1e3)),
        },
        "state": state,
        "shardId": shard,
        "eventSourceARN": ARN,
        "isFinalInvokeForWindow": is_final,
        "isWindowTerminatedEarly": False,
    }


@dataclass
class Window:
    """A window: its records, how many of them Lambda is done with, and the function's state."""

    start: float
    records: list[Record] = field(default_factory=list)
    done: int = 0
    state: dict[str, Any] = field(default_factory=dict)


class Shard:
    """A shard, and Lambda's reading of it: an invocation at a time, in tumbling windows.

    Args:
        handler: The function.
        answer_is_lost: Whether an invocation that did its work counts as failed all the same.

    Attributes:
        invocations: How many there were, those included whose answers were lost.
        lost_answers: How many of these.
    """

    def __init__(self, handler: Handler, answer_is_lost: Callable[[], bool] = bool) -> None:
        self._handler = handler
        self._answer_is_lost = answer_is_lost
        self._windows: list[Window] = []
        self._number = 0
        self.invocations = 0
        self.lost_answers = 0

    def put(self, data: bytes, lines: Sequence[Line], at: float) -> None:
        """A record comes."""
        self._number += 1
        start = at // WINDOW_S * WINDOW_S
        if not self._windows or self._windows[-1].start < start:
            self._windows.append(Window(start))
        self._windows[-1].records.append(Record(at, self._number, data, tuple(lines)))

    def poll(self, now: float) -> list[Line]:
        """Hand over what has come, and close the windows that are over.

        Returns:
            The lines of the windows that were closed: all is done for them.
        """
        closed: list[Line] = []
        while self._windows:
            window = self._windows[0]
            if not self._hand_over(window):
                break
            if now < window.start + WINDOW_S or self._invoke(window, [], is_final=True) is None:
                break
            closed += [line for record in window.records for line in record.lines]
            del self._windows[0]
        return closed

    def _hand_over(self, window: Window) -> bool:
        """Whether the function is done with all records of ``window`` that have come."""
        while window.done < len(window.records):
            lot = window.records[window.done : window.done + MOST_RECORDS]
            failed = self._invoke(window, lot, is_final=False)
            if failed is None:
                return False
            # Lambda comes again from the first that failed on.
            taken = [record for record in lot if not failed or record.number < min(failed)]
            window.done += len(taken)
            if failed:
                return False
        return True

    def _invoke(self, window: Window, lot: list[Record], *, is_final: bool) -> set[int] | None:
        """The numbers of records that have to come again; None where the invocation failed."""
        records = [shown(one.data, one.number, one.at) for one in lot]
        event = json.dumps(event_of(records, window.start, window.state, is_final=is_final))
        try:
            answer = self._call(event)
            while self._answer_is_lost():  # Lambda comes again at once, and knows no better.
                self.lost_answers += 1
                answer = self._call(event)
        except Exception:  # Lambda comes again, whatever it is.
            return None
        state = json.dumps(answer["state"])
        if len(state) > MAX_STATE:
            raise ValueError(f"a state of {len(state):,} characters")
        window.state = json.loads(state)
        failures = {int(one["itemIdentifier"]) for one in answer["batchItemFailures"]}
        return None if is_final and failures else failures

    def _call(self, event: str) -> dict[str, Any]:
        self.invocations += 1
        return self._handler(json.loads(event), Context())


class Subscription:
    """CloudWatch Logs: brings the lines of each log stream to a shard, some of them twice.

    Args:
        shard: Where to.
        comes_twice: Whether a record is delivered once more.

    Attributes:
        twice: How many were.
    """

    def __init__(self, shard: Shard, comes_twice: Callable[[], bool] = bool) -> None:
        self._shard = shard
        self._comes_twice = comes_twice
        self._waiting: dict[str, list[Line]] = {}
        self.twice = 0

    def take(self, log_stream: str, line: Line) -> None:
        """A line is written."""
        self._waiting.setdefault(log_stream, []).append(line)

    def deliver(self, now: float) -> None:
        """Bring what waits: a record for each log stream."""
        for log_stream, lines in self._waiting.items():
            data = packed(log_stream, lines)
            self._shard.put(data, lines, now)
            if self._comes_twice():
                self.twice += 1
                self._shard.put(data, lines, now)
        self._waiting.clear()

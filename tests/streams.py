"""A Kinesis stream of what CloudWatch Logs has subscribed, and Lambda's reading of it in windows.

As AWS documents it: a shard's records come in order, each at least once; an invocation that fails
comes again with the same records and the same state; the last of a window says so, and may hold no
records. https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/usage"


class Context:
    """Lambda's, as far as a relay asks it."""

    def __init__(self, left_s: float = 30.0) -> None:
        self._left_s = left_s

    def get_remaining_time_in_millis(self) -> int:
        return int(self._left_s * 1_000)


def subscription(messages: Sequence[str]) -> str:
    """What CloudWatch Logs puts into one record of a stream, as Lambda shows it."""
    events = [{"id": f"{at:056}", "timestamp": 1, "message": m} for at, m in enumerate(messages)]
    said = {
        "messageType": "DATA_MESSAGE",
        "owner": "123456789012",
        "logGroup": "/aws/lambda/api",
        "logStream": "2026/11/22/[$LATEST]0a1b",
        "subscriptionFilters": ["usage"],
        "logEvents": events,
    }
    return b64encode(gzip.compress(json.dumps(said).encode(), 1)).decode()


def record(number: int, data: str) -> dict[str, Any]:
    """A record of the stream, as Lambda shows it."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "1",
            "sequenceNumber": f"4959{number:052}",
            "data": data,
            "approximateArrivalTimestamp": 1_795_347_180.0 + number / 1_000,
        },
        "eventSource": "aws:kinesis",
        "eventID": f"shardId-000000000000:4959{number:052}",
        "eventSourceARN": ARN,
    }


class Shard:
    """A shard as Lambda reads it, in tumbling windows.

    Args:
        name: Its id.
        handler: The function's.
    """

    def __init__(self, name: str, handler: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._name = name
        self._handler = handler
        self._windows = 0

    def window(
        self, records: Sequence[dict[str, Any]], size: int, *, ends_empty: bool = False
    ) -> None:
        """Have a window read, so many records an invocation, each until it succeeds.

        Args:
            records: Of the window.
            size: Of an invocation.
            ends_empty: Whether the last invocation has no records.
        """
        self._windows += 1
        lots = [list(records[at : at + size]) for at in range(0, len(records), size)]
        if ends_empty or not lots:
            lots.append([])
        state: dict[str, Any] = {}
        for number, lot in enumerate(lots, 1):
            state = self._until_it_succeeds(lot, state, is_last=number == len(lots))

    def _until_it_succeeds(
        self, lot: list[dict[str, Any]], state: dict[str, Any], *, is_last: bool
    ) -> dict[str, Any]:
        for event in self._attempts(lot, state, is_last=is_last):
            try:
                answer = self._handler(event)
            except Exception:  # Lambda comes again, whatever it is.
                continue
            text = json.dumps(answer)
            assert len(json.dumps(answer["state"])) < 1_000_000
            if not answer["batchItemFailures"]:
                found: dict[str, Any] = json.loads(text)["state"]
                return found
            assert answer["batchItemFailures"][0]["itemIdentifier"] in {
                one["kinesis"]["sequenceNumber"] for one in lot
            }
        raise AssertionError("a shard is stuck")

    def _attempts(
        self, lot: list[dict[str, Any]], state: dict[str, Any], *, is_last: bool
    ) -> Iterator[dict[str, Any]]:
        for _ in range(50):
            yield json.loads(
                json.dumps(
                    {
                        "Records": lot,
                        "window": {
                            "start": f"2026-11-22T11:{self._windows:02}:00Z",
                            "end": f"2026-11-22T11:{self._windows + 1:02}:00Z",
                        },
                        "state": state,
                        "shardId": self._name,
                        "eventSourceARN": ARN,
                        "isFinalInvokeForWindow": is_last,
                        "isWindowTerminatedEarly": False,
                    }
                )
            )

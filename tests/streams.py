"""A shard of a Kinesis stream as Lambda reads it in windows, each invocation until it succeeds.

What it hands over is that of `benchmarks.fleet.stream`, where time goes by; here none does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.fleet.stream import MAX_STATE, WINDOW_S, Line, event_of, packed, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def subscription(messages: Sequence[str]) -> bytes:
    """What CloudWatch Logs puts into one record of a stream."""
    return packed("2026/11/22/[$LATEST]0a1b", [Line(0.0, one, "") for one in messages])


def record(number: int, data: bytes) -> dict[str, Any]:
    """A record of the stream, as Lambda shows it."""
    return shown(data, number, number / 1_000)


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
            assert len(json.dumps(answer["state"])) < MAX_STATE
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
            start = self._windows * WINDOW_S
            event = event_of(lot, start, state, is_final=is_last, shard=self._name)
            yield json.loads(json.dumps(event))

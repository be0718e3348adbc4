"""A shard of a Kinesis stream as Lambda reads it in windows, each invocation until it succeeds.

What it hands over is that of `benchmarks.fleet.stream`, where time goes by; here none does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from benchmarks.fleet.stream import MAX_STATE, WINDOW_S, Line, event_of, packed, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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
        recut: By which factor the next attempt of an invocation that failed is larger: half of the
            records if Lambda bisects, more of them if its poller has read on.
    """

    def __init__(
        self,
        name: str,
        handler: Callable[[dict[str, Any]], dict[str, Any]],
        recut: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._name = name
        self._handler = handler
        self._recut = recut
        self._windows = 0

    def window(
        self, records: Sequence[dict[str, Any]], size: int, *, ends_empty: bool = False
    ) -> None:
        """Read a window, so many records an invocation, each until it succeeds.

        Args:
            records: Of the window.
            size: Of an invocation.
            ends_empty: Whether the last invocation has no records.
        """
        self._windows += 1
        state: dict[str, Any] = {}
        at, taken, failures = 0, size, 0
        while True:
            lot = list(records[at : at + taken])
            is_last = at + len(lot) == len(records) and (not ends_empty or not lot)
            following = self._invoke(lot, state, is_last=is_last)
            if following is None:
                failures += 1
                assert failures < 50, "a shard is stuck"
                taken = max(1, int(taken * self._recut()))
                continue
            if is_last:
                return
            at, taken, state, failures = at + len(lot), size, following, 0

    def _invoke(
        self, lot: list[dict[str, Any]], state: dict[str, Any], *, is_last: bool
    ) -> dict[str, Any] | None:
        """The state for the next invocation; None if this one failed."""
        start = self._windows * WINDOW_S
        event = event_of(lot, start, state, is_final=is_last, shard=self._name)
        try:
            answer = self._handler(json.loads(json.dumps(event)))
        except Exception:  # Lambda comes again, whatever it is.
            return None
        text = json.dumps(answer)
        assert len(json.dumps(answer["state"])) < MAX_STATE
        if not answer["batchItemFailures"]:
            found: dict[str, Any] = json.loads(text)["state"]
            return found
        assert answer["batchItemFailures"][0]["itemIdentifier"] in {
            one["kinesis"]["sequenceNumber"] for one in lot
        }
        return None

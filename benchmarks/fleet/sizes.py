"""What delivery by log takes of AWS, from measured bytes: ``python -m benchmarks.fleet.sizes``.

The prices are those of AWS's public list for us-east-1, without free tiers and discounts, as they
were known when this was written: check them. They are the constants below.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from doow_serverless import Tracker

from .load import EVENTS, INVOCATIONS_PER_MINUTE, LICENSES, SHAPES, USES
from .relay import relaying
from .sandboxes import KEY, logging_to
from .stream import MOST_RECORDS, Context, Line, Record, event_of, packed, shown
from .ways import WAYS

if TYPE_CHECKING:
    from collections.abc import Sequence

INGESTION = 0.50
"""Dollars for a GB that CloudWatch Logs takes in (standard class, the first 10 TB a month)."""
SHARD_HOUR = 0.015 + 0.020
"""Dollars for a shard, and for keeping what it holds for up to a week, as `relay.yaml` does."""
PUT_UNITS = 0.014
"""Dollars for a million PUT payload units, each of up to 25 KB of one record."""
GB_SECOND = 0.0000166667
"""Dollars for a GB-second of Lambda (x86)."""
LOG_OVERHEAD = 26
"""Bytes that CloudWatch Logs adds to each line for its account."""
SHARD_BYTES, SHARD_RECORDS = 1_000_000, 1_000
"""What a shard takes in a second."""
BUSY = 0.5
"""Part of its time that a relay may be at work: it reads a shard in one invocation at a time."""
RELAY_GB = 1.769
"""Memory of the relay: with so much Lambda grants a whole processor."""
RATES = (1, 10, INVOCATIONS_PER_MINUTE / 60, 100, 1_000, 10_000)
"""Invocations a second."""
HELD_S, FUNCTION_GB = 0.03, 0.5
"""A direct POST from within the region, as assumed, and the memory of the function that waits."""


@dataclass(frozen=True)
class Measured:
    """What was measured of a line, for an invocation of so many events.

    Attributes:
        line: Bytes of the line in the log.
        record: Bytes of the record in the stream, with this line alone in it.
        relay_s: Seconds of a processor that the relay needs for it.
    """

    line: float
    record: float
    relay_s: float


@dataclass(frozen=True)
class Costs:
    """Dollars for a million calls of ``track``, and the shards that it takes."""

    shards: int
    logs: float
    stream: float
    lambdas: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.logs + self.stream + self.lambdas


def by_log(each: Measured, invocations_per_s: float) -> Costs:
    """What delivery by log costs, where each record of the stream holds one line: the worst."""
    lines = 1e6 / EVENTS  # that a million calls of track make
    seconds = lines / invocations_per_s
    shards = math.ceil(
        invocations_per_s * max(1 / SHARD_RECORDS, each.record / SHARD_BYTES, each.relay_s / BUSY)
    )
    return Costs(
        shards,
        logs=lines * (each.line + LOG_OVERHEAD) / 1e9 * INGESTION,
        stream=shards * seconds / 3600 * SHARD_HOUR
        + lines * math.ceil(each.record / 25_000) / 1e6 * PUT_UNITS,
        lambdas=lines * each.relay_s * RELAY_GB * GB_SECOND,
    )


def direct() -> float:
    """Dollars for a million calls of ``track`` that direct delivery holds functions for."""
    return 1e6 / EVENTS * HELD_S * FUNCTION_GB * GB_SECOND


# ── measured ────────────────────────────────────────────────────────────────────────────────────


def lines_of(invocations: int, events: int, *, fold: bool) -> list[str]:
    """The lines that as many invocations write, each of so many events for one license."""
    lines: list[str] = []
    tracker = Tracker(KEY, delivery="log", fold=fold, environ={})

    @tracker.tracked
    def handler(license_id: str) -> None:
        for number in range(events):
            metric, unit, attribution = USES[number % len(USES)]
            tracker.track(metric, license_id=license_id, unit=unit, attribution=attribution)

    with logging_to(lines.append):
        for number in range(invocations):
            handler(f"lic_{number % LICENSES:02}")
    return lines


def records_of_lines(lines: Sequence[str], lines_each: int) -> list[Record]:
    """Records of a stream with so many lines each."""
    whole = [Line(at / 1e3, text, str(at)) for at, text in enumerate(lines)]
    lots = [whole[at : at + lines_each] for at in range(0, len(whole), lines_each)]
    return [Record(0.0, at, packed("2026/01/01/[$LATEST]0a1b", lot), ()) for at, lot in
            enumerate(lots, 1)]  # fmt: skip


def relay_s(records: Sequence[Record]) -> float:
    """Seconds of a processor for each record, over a window, with JSON in and out as on Lambda."""
    took_s = 0.0
    with relaying("http://127.0.0.1:9") as handler:  # Nothing is sent before the window closes.
        state: dict[str, object] = {}
        for at in range(0, len(records), MOST_RECORDS):
            lot = [shown(one.data, one.number, one.at) for one in records[at : at + MOST_RECORDS]]
            event = json.dumps(event_of(lot, 0.0, state, is_final=False))
            began = time.process_time()
            answer = json.dumps(handler(json.loads(event), Context()))
            state = json.loads(answer)["state"]
            took_s += time.process_time() - began
    return took_s / len(records)


def measure(events: int, *, fold: bool) -> Measured:
    """The medians of 2,000 lines."""
    lines = lines_of(2_000, events, fold=fold)
    records = records_of_lines(lines, 1)
    return Measured(
        statistics.median(map(len, lines)),
        statistics.median(len(record.data) for record in records),
        relay_s(records),
    )


# ── told ────────────────────────────────────────────────────────────────────────────────────────


def bytes_table() -> Table:
    """Bytes of lines and records."""
    made = Table(title="Bytes, and the relay's time, for an invocation", title_justify="left")
    for name in ("events", "line", "record of 1 line", "… of 10, a line", "relay, ms"):
        made.add_column(name, justify="right")
    for events, fold in ((1, False), (EVENTS, False), (EVENTS, True), (100, False)):
        each = measure(events, fold=fold)
        ten = records_of_lines(lines_of(100, events, fold=fold), 10)
        name = f"{events}, folded to {len(USES)}" if fold else f"{events}"
        size = statistics.median(len(record.data) for record in ten) / 10
        cells = (f"{each.line:,.0f}", f"{each.record:,.0f}", f"{size:,.0f}")
        made.add_row(name, *cells, f"{each.relay_s * 1e3:.2f}")
    return made


def events_table(each: Measured) -> Table:
    """Events a minute, as Doow counts them, up to 10,000 invocations a second."""
    title = f"Events a minute; {EVENTS} an invocation, of {SHAPES} shapes"
    made = Table(title=title, title_justify="left")
    for name in ("invocations/s", *(way.name for way in WAYS), "shards"):
        made.add_column(name, justify="right")
    for rate in RATES:
        shards = by_log(each, rate).shards
        folded = rate * 60 * len(USES)
        counts = (rate * 60 * EVENTS, folded, min(shards * SHAPES, folded), shards)
        made.add_row(f"{rate:,.0f}", *(f"{one:,.0f}" for one in counts))
    return made


def costs_table(each: Measured) -> Table:
    """Dollars for a million events."""
    title = f"Dollars for a million events by log; direct: {direct():.3f}"
    made = Table(title=title, title_justify="left")
    for name in ("invocations/s", "log", "stream", "relay", "sum"):
        made.add_column(name, justify="right")
    for rate in RATES:
        costs = by_log(each, rate)
        dollars = (costs.logs, costs.stream, costs.lambdas, costs.total)
        made.add_row(f"{rate:,.0f}", *(f"{one:.4f}" for one in dollars))
    return made


def main() -> None:
    """Measure, and print the arithmetic."""
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(bytes_table())
    each = measure(EVENTS, fold=True)
    screen.print(events_table(each))
    screen.print(costs_table(each))


if __name__ == "__main__":
    main()

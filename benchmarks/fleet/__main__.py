"""``python -m benchmarks.fleet``: a fleet that records twenty times what its account may send.

The library's engine, its HTTP, the local ingest and the relay's handler are the real ones; the
sandboxes, CloudWatch, Kinesis and Lambda are stand-ins in this process. Time in which nothing
happens is left out: trackers, sandboxes, windows and the ingest's limit go by one clock, which runs
as the machine's does while something is at work, and then jumps to whatever comes next. So a minute
of the limit is a minute to whoever is told to wait for it, and ``Retry-After`` means what it says.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from . import load
from .plot import draw
from .report import delays, ledger_table, most_lost, rate, summary
from .ways import WAYS, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .ways import Story

HOW = (
    f"{load.SANDBOXES} sandboxes at a time, each living for {load.LIFE_S[0] / 60:.0f} to "
    f"{load.LIFE_S[1] / 60:.0f} minutes; {load.INVOCATIONS_PER_MINUTE:,} invocations a minute with "
    f"{load.EVENTS} events each, of {load.SHAPES} shapes, against {load.LIMIT:,} events a minute "
    "that the account may send.\n"
    "Time is simulated: one clock for trackers, sandboxes, windows and the limit; it runs as the "
    "machine's while something is at work, and jumps over the pauses between.\n"
    "In the log alone: nobody has it in memory any more, or, by log, the relay is not done with it."
)
NO_PICTURE = "No picture, since matplotlib is missing: uv pip install --group plot"


class Warnings(logging.Handler):
    """Counts what the library says in the log, so that it is told once."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        """Count one."""
        self.counts[record.getMessage()] += 1


def main() -> int:
    """Run all three ways, and say what became of them; 1 if anything is lost or counted twice."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet")
    parser.add_argument("--minutes", type=float, default=12.0, help="simulated, of recording")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--picture", type=Path, help="where to draw it, as .svg or .png")
    chosen = parser.parse_args()
    screen = Console(highlight=False, soft_wrap=True)
    screen.print(HOW)
    warnings = Warnings()
    logger = logging.getLogger("doow_serverless")
    logger.addHandler(warnings)
    logger.propagate = False
    stories = []
    for way in WAYS:
        stories.append(run(way, chosen.minutes, chosen.seed))
        screen.print(ledger_table(stories[-1]))
    screen.print(summary(stories, chosen.minutes))
    screen.print(delays(stories[-1]))
    for said, times in warnings.counts.most_common(5):
        screen.print(f"{times:,} times: {said}", markup=False)
    if chosen.picture is not None:
        screen.print(_picture(stories, chosen.minutes, chosen.picture))
    return int(any(most_lost(story) for story in stories))


def _picture(stories: Sequence[Story], minutes: float, path: Path) -> str:
    title = (
        f"What became of {load.INVOCATIONS_PER_MINUTE * load.EVENTS:,} events a minute, "
        f"where the account may send {load.LIMIT:,}"
    )
    titles = [
        f"{story.way.name}\nneeds {rate(story, minutes):,.0f} events a minute; "
        f"lost: {most_lost(story):,}"
        for story in stories
    ]
    try:
        draw(stories, title, titles, path)
    except ImportError:
        return NO_PICTURE
    return f"drawn: {path}"


if __name__ == "__main__":
    sys.exit(main())

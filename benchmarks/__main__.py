"""Prints every figure: ``python -m benchmarks``."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from . import by_log, cold, deadline, handing_over, hooks, warm, web

if TYPE_CHECKING:
    from collections.abc import Sequence


def table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    """A table whose first column is text and whose others are figures."""
    made = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left")
    for row in rows:
        made.add_row(*row)
    return made


def main() -> None:
    """Measure and print."""
    console = Console()
    console.print(f"CPython {platform.python_version()} on {platform.machine()}")
    console.print(table("Cold start", ("", "ms", "modules"), cold.rows()))
    recording = [
        *warm.recording(),
        *warm.journaled(),
        *warm.ten_thousand(),
        *warm.ten_thousand(fold=True),
    ]
    console.print(table("Recording", ("", "median"), recording))
    console.print(table("An invocation's deadline", ("", "median"), deadline.rows()))
    title = "A response on Lambda, ms, and the end of the wrapper in it, server delay 20 ms"
    console.print(table(title, handing_over.COLUMNS, handing_over.rows()))
    title = "A response on Lambda that records to the log, ms"
    console.print(table(title, by_log.COLUMNS, by_log.rows()))
    title = f"{hooks.INVOCATIONS:,} invocations, and a hook after each"
    console.print(table(title, hooks.COLUMNS, hooks.rows()))
    headings = ("", "bare, µs", "middleware, µs", "difference")
    console.print(table("A request that records nothing", headings, web.rows()))
    for delay_s, rounds in ((0.0, 200), (0.02, 40)):
        title = f"A warm invocation, server delay {delay_s * 1e3:.0f} ms"
        columns = ("events", "bare post, ms", "tracked, ms", "difference", "requests")
        console.print(table(title, columns, warm.invocations(delay_s, rounds)))


if __name__ == "__main__":
    main()

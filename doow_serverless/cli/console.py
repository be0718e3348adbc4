"""What the commands print with: no markup, nothing that steers a terminal, numbers in words."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from doow_serverless._redaction import clean


def console(*, stderr: bool = False) -> Console:
    """Standard output, for the result; or standard error, for all that is beside it."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False, soft_wrap=True)


def progress_bar(screen: Console) -> Progress:
    """A bar on ``screen`` where somebody watches, gone at the end."""
    return Progress(
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("gone,"),
        TimeRemainingColumn(),
        TextColumn("left"),
        TextColumn("{task.description}"),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
    )


def safe(line: str) -> str:
    """Text from files, logs and servers, without what would steer the terminal."""
    return clean(line, 1_000)


def number(count: int, name: str) -> str:
    """``"1 event"``, ``"1,024 events"``, ``"2 batches"``."""
    plural = "es" if name.endswith("ch") else "s"
    return f"{count:,} {name}{'' if count == 1 else plural}"

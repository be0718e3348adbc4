"""What became of each run, as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from .load import LIMIT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .ledger import Row
    from .ways import Story

COLUMNS = ("recorded", "delivered", "waits in memory", "in the log alone", "lost")


def ledger_table(story: Story) -> Table:
    """The ledger in the middle of each minute, and at the end."""
    made = Table(title=f"Calls of track: {story.way.name}", title_justify="left")
    for column in ("simulated", *COLUMNS):
        made.add_column(column, justify="right")
    for row in story.rows:
        if row is not story.rows[-1] and round(row.at) % 60 == 30:
            made.add_row(f"{row.at / 60:.1f} min", *_cells(row))
    made.add_section()
    made.add_row("all are gone", *_cells(story.rows[-1]))
    return made


def _cells(row: Row) -> list[str]:
    values = (row.recorded, row.delivered, row.waiting, row.in_log, row.lost)
    return [f"{value:,}" for value in values]


def summary(stories: Sequence[Story], minutes: float) -> Table:
    """One line for each way."""
    made = Table(title=f"After {minutes:g} minutes of recording", title_justify="left")
    made.add_column("", no_wrap=True)
    for story in stories:
        made.add_column(story.way.name, justify="right")
    lines = [
        ("sandboxes that lived", [f"{one.lives:,}" for one in stories]),
        ("events a minute that it takes", [f"{rate(one, minutes):,.0f}" for one in stories]),
        ("… of what may be sent", [f"{rate(one, minutes) / LIMIT:.0%}" for one in stories]),
        ("POSTs", [f"{sum(one.posts.values()):,}" for one in stories]),
        ("… answered 429", [f"{one.posts[429]:,}" for one in stories]),
        ("delivered", [_part(one.rows[-1]) for one in stories]),
        ("to replay the rest, minutes", [f"{one.rows[-1].rest / LIMIT:,.0f}" for one in stories]),
        ("lost, at any look", [f"{most_lost(one):,}" for one in stories]),
        ("real seconds", [f"{one.took_s:.0f}" for one in stories]),
    ]
    for name, cells in lines:
        made.add_row(name, *cells)
    return made


def most_lost(story: Story) -> int:
    """What was nowhere, or counted twice, when that was worst."""
    return max((row.lost for row in story.rows), key=abs)


def delays(story: Story) -> str:
    """How long it took from a line of the log to Doow, in a sentence."""
    found = sorted(delay_s for delay_s, calls in story.delays_s for _ in range(calls))
    if not found:
        return ""
    middle, late = found[len(found) // 2], found[int(len(found) * 0.99)]
    return (
        f"{story.way.name}: from the line of the log to Doow {found[0]:.0f} s at the least, "
        f"{middle:.0f} s in the median, {late:.0f} s for 99%, {found[-1]:.0f} s at the most. "
        f"The relay: {story.relay}."
    )


def rate(story: Story, minutes: float) -> float:
    """Events a minute that would have to be delivered, as Doow counts, for none to be left."""
    return (story.events + story.rows[-1].rest) / minutes


def _part(row: Row) -> str:
    return f"{row.delivered / row.recorded:.1%}"

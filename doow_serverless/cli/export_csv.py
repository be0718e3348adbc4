"""CSV as the portals of CloudWatch and Azure write it: lines of a log in one column."""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING

from doow_serverless._frames.envelopes import Unread
from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Part, read_frame

from .export_findings import Stray, frames_or_stray
from .export_pieces import place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .export_findings import Taken
    from .export_pieces import Piece

_LONGEST_CELL = 4 * 1024 * 1024
# Characters: more than CloudWatch and Azure take as one event.
_INSIGHTS = "@message"
_MESSAGE, _TIMES = "message", {"timestamp", "timegenerated"}
_ZONE = re.compile(r" \[[^\]]*\]$")
# Azure's portal writes the zone behind the names of times.


def column_of(line: str) -> int | None:
    """Return the column of messages, if ``line`` is a header of CSV that a portal writes.

    Both write the time of a message, too: CloudWatch Logs Insights in a column that begins with an
    at sign, as all that are its own, and Application Insights and Log Analytics under two names.
    https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/CWL_AnalyzeLogData-discoverable-fields.html
    https://learn.microsoft.com/azure/azure-monitor/reference/tables/apptraces
    """
    if _MESSAGE not in line.lower() or line.lstrip()[:1] in ("{", "["):
        return None
    try:
        names = [_ZONE.sub("", name.strip().lower()) for name in next(csv.reader([line.strip()]))]
    except csv.Error:
        return None
    if _INSIGHTS in names and sum(name.startswith("@") for name in names) > 1:
        return names.index(_INSIGHTS)
    if _MESSAGE in names and not _TIMES.isdisjoint(names):
        return names.index(_MESSAGE)
    return None


def csv_frames(column: int, header: int, pieces: Iterable[Piece]) -> Iterator[Taken]:
    """Yield the frames in one column, and what was found besides.

    A line that is exactly a frame counts, too: CSV doubles quotes, so it is no part of a cell, and
    the file is a plain log that begins with such a header.

    Args:
        column: The number of the column, from 0 up.
        header: The number of the line that is the header.
        pieces: What follows the header.
    """
    csv.field_size_limit(_LONGEST_CELL)
    lines: list[Part] = []
    rows = csv.reader(_text(pieces, lines))
    while True:
        try:
            row = next(rows)
        except StopIteration:
            yield from lines
            return
        except csv.Error as problem:
            yield Unread(place(header + rows.line_num), f"is no CSV ({problem})")
            row = []
        yield from lines
        lines.clear()
        where = place(header + rows.line_num)
        for number, cell in enumerate(row):
            if number == column:
                yield from frames_or_stray(cell, where)
            elif MARKER in cell:
                yield Stray(where, cell.count(MARKER))


def _text(pieces: Iterable[Piece], lines: list[Part]) -> Iterator[str]:
    """Yield the lines of CSV, and add those that are frames to ``lines`` instead."""
    for piece in pieces:
        one = read_frame(piece.text) if piece.is_start and piece.is_end else None
        if isinstance(one, Part):
            lines.append(one)
            yield "\n"
        else:
            yield re.sub("[\\r\\0]", "", piece.text) + "\n" * piece.is_end

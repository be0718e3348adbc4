"""Cuts text that comes in blocks into lines, and lines that are too long into pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LONGEST_LINE = 1024 * 1024
# No frame is longer than 28,000 characters; a longer line can only hold documents.


class Piece(NamedTuple):
    """A line of text, or a piece of a long one."""

    number: int
    text: str
    is_start: bool
    is_end: bool


def pieces_of(blocks: Iterable[str]) -> Iterator[Piece]:
    """Yield the lines of a text that comes in blocks."""
    number, is_start = 1, True
    kept: list[str] = []
    size = 0
    for block in blocks:
        first, *lines = block.split("\n")
        kept.append(first)
        size += len(first)
        for line in lines:
            yield Piece(number, "".join(kept), is_start, True)
            number, is_start = number + 1, True
            kept, size = [line], len(line)
        if size >= _LONGEST_LINE:
            yield Piece(number, "".join(kept), is_start, False)
            kept, size, is_start = [], 0, False
    yield Piece(number, "".join(kept), is_start, True)


def place(number: int) -> str:
    """Return where a line stands, in words for an operator."""
    return f"line {number}"

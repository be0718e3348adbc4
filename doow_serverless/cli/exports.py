"""Takes the frames out of exported logs: a file is one export, which declares itself as it begins.

A line that is exactly a frame counts in every text. Beyond that the first line decides: a header of
CSV, a document of an export tool (see ``export_kinds``), or the prefix that such a tool puts before
each line. What follows is unwrapped in the same way, and never searched: a log may hold lines that
look like another tool's, because somebody had the application write them.
"""

from __future__ import annotations

import csv
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from doow_serverless._frames.envelopes import Unread
from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Part, read_frame

from .export_bytes import blocks_of
from .export_documents import Documents, NoDocument, parsed, values_in
from .export_kinds import FRAMES, Kind, kind_of
from .export_unwrapping import Stray, frames_of_document, frames_or_stray

if TYPE_CHECKING:
    import io
    from collections.abc import Iterable, Iterator

    from .export_unwrapping import Taken

_LONGEST_LINE = 1024 * 1024
# No frame is longer than 28,000 characters; a longer line can only hold documents.
_COLUMNS = ("@message", "message")
_STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_LEVEL = r"\[(?:Trace|Verbose|Debug|Information|Warning|Error|Critical)\]"
_STREAM = r"\d{4}/\d\d/\d\d/[\w-]{0,64}\[[\w$]{1,40}\](?:\[[\w-]{1,40}\])?[0-9a-f]{0,64}"
_PREFIXES = [
    # The first line of an export, and the prefix of each of its lines.
    (re.compile(declared), re.compile(prefix))
    for declared, prefix in (
        (rf"{_STAMP} std(?:out|err) [FP](?: |$)", rf"{_STAMP} std(?:out|err) F "),
        (rf"{_STAMP} +(?:{_LEVEL}(?: |$)|Welcome, you )", rf"{_STAMP} +{_LEVEL} +"),
        (rf"{_STAMP} {_STREAM}(?: |$)", rf"{_STAMP} {_STREAM} "),
        (rf"{_STAMP}(?: |$)", rf"{_STAMP} "),
    )
]


def frames_in(stream: io.BufferedReader) -> Iterator[Taken]:
    """Yield the frames of an export, whole and damaged, and what was found besides.

    Raises:
        Unreadable: The export cannot be read to its end. What came before it was yielded.
    """
    return _Export().read(blocks_of(stream))


class _Piece(NamedTuple):
    """A line of text, or a piece of a long one."""

    number: int
    text: str
    is_start: bool
    is_end: bool


def _pieces(blocks: Iterable[str]) -> Iterator[_Piece]:
    number, is_start = 1, True
    kept: list[str] = []
    size = 0
    for block in blocks:
        first, *lines = block.split("\n")
        kept.append(first)
        size += len(first)
        for line in lines:
            yield _Piece(number, "".join(kept), is_start, True)
            number, is_start = number + 1, True
            kept, size = [line], len(line)
        if size >= _LONGEST_LINE:
            yield _Piece(number, "".join(kept), is_start, False)
            kept, size, is_start = [], 0, False
    yield _Piece(number, "".join(kept), is_start, True)


def _at(number: int) -> str:
    return f"line {number}"


class _Export:
    """Reads one export."""

    def __init__(self) -> None:
        self._has_begun = False
        self._kind: Kind | None = None
        self._prefix: re.Pattern[str] | None = None
        self._documents: Documents | None = None
        self._began_at = 0
        self._skipped_tail: str | None = None

    def read(self, blocks: Iterable[str]) -> Iterator[Taken]:
        """Yield everything that is found; see `frames_in`."""
        pieces = _pieces(blocks)
        for piece in pieces:
            if not self._has_begun and not piece.text.isspace() and piece.text:
                column = _column_of(piece.text)
                if column is not None:
                    yield from self._csv(column, piece.number, pieces)
                    return
            yield from self._take(piece)
        if self._documents is not None:
            yield from self._give_up()

    # ── text ────────────────────────────────────────────────────────────────────────────────────

    def _take(self, piece: _Piece) -> Iterator[Taken]:
        if self._skipped_tail is not None:
            yield from self._skip(piece)
        elif self._documents is not None:
            yield from self._go_on(piece)
        elif piece.is_end:
            yield from self._line(piece.text, piece.number, may_open=True)
        elif self._may_hold_documents(piece.text, is_prefixed=False):
            yield from self._open(piece)
        else:
            yield from self._skip(piece)

    def _line(self, text: str, number: int, *, may_open: bool) -> Iterator[Taken]:
        """Take in a whole line, which begins a longer document only if it ``may_open`` one."""
        if not text or text.isspace():
            return
        if not self._has_begun:
            self._prefix = _prefix_of(text)
        prefix = self._prefix and self._prefix.match(text)
        body = text[prefix.end() :] if prefix else text
        one = read_frame(body)
        if isinstance(one, Part):
            self._has_begun = True
            yield one
            return
        if self._may_hold_documents(body, is_prefixed=bool(prefix)):
            values = None if prefix else values_in(body.strip())
            if values is not None:
                for value, source in values:
                    yield from self._document(value, source, number)
                return
            if may_open:
                yield from self._open(_Piece(number, body, True, True))
                return
        self._has_begun = True
        if one is not None:
            yield one
        else:
            yield from self._stray(body, number)

    def _stray(self, text: str, number: int) -> Iterator[Stray]:
        count = text.count(MARKER)
        if count:
            yield Stray(_at(number), count)

    def _skip(self, piece: _Piece) -> Iterator[Taken]:
        """Pass over a piece of a line that is too long; a marker may be cut in two."""
        self._has_begun = True
        text = (self._skipped_tail or "") + piece.text
        yield from self._stray(text, piece.number)
        self._skipped_tail = None if piece.is_end else text[1 - len(MARKER) :]

    # ── documents ───────────────────────────────────────────────────────────────────────────────

    def _may_hold_documents(self, text: str, *, is_prefixed: bool) -> bool:
        if self._prefix is not None:
            # `aws logs tail --format json` prints a line that is JSON prettily.
            return is_prefixed and text.strip() == "{"
        if self._has_begun and self._kind is None:
            return False
        return text.lstrip()[:1] in ("{", "[")

    def _open(self, piece: _Piece) -> Iterator[Taken]:
        self._has_begun = self._has_begun or self._prefix is not None
        self._documents = Documents()
        self._began_at = piece.number
        yield from self._go_on(piece)

    def _go_on(self, piece: _Piece) -> Iterator[Taken]:
        """Take in the next piece of a document, or give the document up if it cannot go on so."""
        assert self._documents is not None
        text, is_frame = piece.text + "\n" * piece.is_end, False
        if piece.is_start and piece.is_end:
            one = read_frame(piece.text)
            if isinstance(one, Part):
                yield one
                text, is_frame = "null\n", True
        try:
            sources = self._documents.feed(text)
        except NoDocument:
            yield from self._give_up(None if is_frame else piece)
            return
        for source in sources:
            yield from self._whole(source)
            self._began_at = piece.number
        if piece.is_end and not self._documents.is_open:
            self._documents = None

    def _whole(self, source: str) -> Iterator[Taken]:
        try:
            value = parsed(source)
        except NoDocument:
            self._has_begun = True
            yield from self._stray(source, self._began_at)
        else:
            yield from self._document(value, source, self._began_at)

    def _give_up(self, piece: _Piece | None = None) -> Iterator[Taken]:
        """Read as lines what was held for a document; ``piece`` may be the start of another."""
        assert self._documents is not None
        held, self._documents = self._documents.held(), None
        first = self._began_at
        if piece is not None and not piece.is_start:
            yield from self._stray(held, first)
            yield from self._skip(piece)
            return
        for number, line in enumerate(held.split("\n"), first):
            yield from self._line(line, number, may_open=False)
        if piece is None:
            return
        if piece.is_end:
            yield from self._line(piece.text, piece.number, may_open=piece.number != first)
        elif piece.number != first:
            yield from self._take(piece)
        else:
            yield from self._skip(piece)

    def _document(self, value: Any, source: str, number: int) -> Iterator[Taken]:
        if self._prefix is not None:
            kind: Kind | None = FRAMES
        elif self._has_begun:
            kind = self._kind
        else:
            kind = self._kind = kind_of(value)
            self._has_begun = True
        return frames_of_document(value, source, kind, _at(number))

    # ── CSV ─────────────────────────────────────────────────────────────────────────────────────

    def _csv(self, column: int, header: int, pieces: Iterator[_Piece]) -> Iterator[Taken]:
        """Read the one column; ``pieces`` are what follows the header."""
        csv.field_size_limit(_LONGEST_LINE)
        rows = csv.reader(
            re.sub("[\\r\\0]", "", piece.text) + "\n" * piece.is_end for piece in pieces
        )
        while True:
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as problem:
                yield Unread(_at(header + rows.line_num), f"is no CSV ({problem})")
                continue
            place = _at(header + rows.line_num)
            for number, cell in enumerate(row):
                if number == column:
                    yield from frames_or_stray(cell, place)
                elif MARKER in cell:
                    yield Stray(place, cell.count(MARKER))


def _prefix_of(text: str) -> re.Pattern[str] | None:
    for declared, prefix in _PREFIXES:
        if declared.match(text.rstrip()):
            return prefix
    return None


def _column_of(line: str) -> int | None:
    """Return the column of messages, if ``line`` is a header of CSV that has one."""
    if not any(name in line.lower() for name in _COLUMNS) or line.lstrip()[:1] in ("{", "["):
        return None
    try:
        names = [name.strip().lower() for name in next(csv.reader([line.strip()]))]
    except csv.Error:
        return None
    return next((names.index(name) for name in _COLUMNS if name in names), None)

"""Takes the frames out of exported logs: a file is one export, which declares itself as it begins.

The first line decides: a header of CSV, a document of an export tool (see ``export_kinds``), or the
prefix that such a tool puts before each event. What follows is unwrapped in the same way, and never
searched: a log may hold lines that look like another tool's, because somebody had the application
write them. A line that is exactly a frame counts, unless it is no line of the log: neither are the
further lines of an event behind a prefix, nor the chunks of a line.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Part, read_frame

from .export_bytes import blocks_of
from .export_chunks import ChunkedLines
from .export_csv import column_of, csv_frames
from .export_documents import Documents, NoDocument, parsed, values_in
from .export_findings import Stray
from .export_kinds import FRAMES, Kind, kind_of
from .export_messages import Chunk
from .export_objects import HeldFrames
from .export_pieces import Piece, pieces_of, place
from .export_unwrapping import frames_of_document

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Iterable, Iterator

    from .export_findings import Taken

_DATE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
_STAMP = rf"{_DATE}(?:\.\d{{1,9}})?(?:Z|[+-]\d\d:?\d\d)?"
_BARE = rf"{_DATE}(?:|\.\d{{3}}Z|\.\d{{7,9}}(?:Z|[+-]\d\d:\d\d))"
# As `aws logs tail --format short`, CreateExportTask and container runtimes write it, each always.
# Applications write other times before their lines.
_LEVEL = r"\[(?:Trace|Verbose|Debug|Information|Warning|Error|Critical)\]"
_STREAM = r"\d{4}/\d\d/\d\d/[\w-]{0,64}\[[\w$]{1,40}\](?:\[[\w-]{1,40}\])?[0-9a-f]{0,64}"
_TAGGED = rf"{_STAMP} (?P<stream>std(?:out|err)) (?P<tag>[FP])(?: |$)"
# https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
_PREFIXES = [
    # The first line of an export, and the prefix of each of its events.
    (re.compile(declared), re.compile(prefix))
    for declared, prefix in (
        (_TAGGED, _TAGGED),
        (rf"{_STAMP} +(?:{_LEVEL}(?: |$)|Welcome, you )", rf"{_STAMP} +{_LEVEL} +"),
        (rf"{_STAMP} {_STREAM}(?: |$)", rf"{_STAMP} {_STREAM} "),
        (rf"{_BARE}(?: |$)", rf"{_BARE} "),
    )
]
_NO_PREFIX = (
    "is a whole record on a line without the prefix of the file's first line, so it may be text "
    "within an event"
)


def _never(_: Part) -> bool:
    return False


def frames_in(
    stream: io.BufferedReader, proves: Callable[[Part], bool] = _never
) -> Iterator[Taken]:
    """Yield the frames of an export, whole and damaged, and what was found besides.

    Args:
        stream: The export.
        proves: Returns whether a frame proves by itself who has written it. Then it counts
            wherever it is a line.

    Raises:
        Unreadable: The export cannot be read to its end. What came before it was yielded.
    """
    return _Export(proves).read(blocks_of(stream))


class _Export:
    """Reads one export."""

    def __init__(self, proves: Callable[[Part], bool]) -> None:
        self._proves = proves
        self._has_begun = False
        self._kind: Kind | None = None
        self._prefix: re.Pattern[str] | None = None
        self._is_frames = False
        self._documents: Documents | None = None
        self._began_at = 0
        self._skipped_tail: str | None = None
        self._lines = ChunkedLines()
        self._held = HeldFrames()

    def read(self, blocks: Iterable[str]) -> Iterator[Taken]:
        """Yield everything that is found; see `frames_in`."""
        pieces = pieces_of(blocks)
        for piece in pieces:
            if not self._has_begun and not piece.text.isspace() and piece.text:
                column = column_of(piece.text)
                if column is not None:
                    yield from csv_frames(column, piece.number, pieces)
                    return
            yield from self._take(piece)
        if self._documents is not None:
            yield from self._give_up()
        yield from self._lines.end()
        yield from self._held.end()

    # ── text ────────────────────────────────────────────────────────────────────────────────────

    def _take(self, piece: Piece) -> Iterator[Taken]:
        if self._skipped_tail is not None:
            yield from self._skip(piece)
        elif self._documents is not None:
            yield from self._go_on(piece)
        elif piece.is_end:
            yield from self._line(piece.text, piece.number, may_open=True)
        elif self._may_hold_documents(piece.text):
            yield from self._open(piece)
        else:
            yield from self._skip(piece)

    def _line(self, text: str, number: int, *, may_open: bool) -> Iterator[Taken]:
        """Take in a whole line, which begins a longer document only if it ``may_open`` one."""
        if not text or text.isspace():
            return
        if not self._has_begun:
            self._prefix = _prefix_of(text)
        if self._prefix is not None:
            yield from self._prefixed(text, self._prefix, number, may_open=may_open)
            return
        one = read_frame(text)
        if isinstance(one, Part):
            self._has_begun = True
            yield one
            return
        if self._may_hold_documents(text):
            values = values_in(text.strip())
            if values is not None:
                for value, source in values:
                    yield from self._document(value, source, number)
                return
            if may_open:
                yield from self._open(Piece(number, text, True, True))
                return
        self._has_begun = True
        if one is not None:
            yield one
        else:
            yield from self._stray(text, number)

    def _prefixed(
        self, text: str, prefix: re.Pattern[str], number: int, *, may_open: bool
    ) -> Iterator[Taken]:
        """Take in a line of an export that has declared a prefix.

        A line without it goes on with the event before. An event counts if it consists of frames.
        """
        self._has_begun = True
        found = prefix.match(text)
        if found and found.groupdict():
            is_last = found["tag"] == "F"
            chunk = Chunk(text[found.end() :], place(number), found["stream"], is_last)
            yield from self._lines.add(chunk)
            return
        body = text[found.end() :] if found else text
        one = read_frame(body)
        if isinstance(one, Part):
            self._is_frames = self._is_frames or found is not None
            is_taken = self._is_frames or self._proves(one)
            yield one if is_taken else Stray(place(number), 1, _NO_PREFIX)
            return
        self._is_frames = found is not None and not body.strip()
        if one is not None:
            yield one
        elif found and may_open and body.strip() == "{":
            # `aws logs tail --format json` prints a line that is JSON prettily.
            yield from self._open(Piece(number, body, True, True))
        else:
            yield from self._stray(body, number)

    def _stray(self, text: str, number: int) -> Iterator[Stray]:
        yield from self._held.drop()
        count = text.count(MARKER)
        if count:
            yield Stray(place(number), count)

    def _skip(self, piece: Piece) -> Iterator[Taken]:
        """Pass over a piece of a line that is too long; a marker may be cut in two."""
        self._has_begun, self._is_frames = True, False
        text = (self._skipped_tail or "") + piece.text
        yield from self._stray(text, piece.number)
        self._skipped_tail = None if piece.is_end else text[1 - len(MARKER) :]

    # ── documents ───────────────────────────────────────────────────────────────────────────────

    def _may_hold_documents(self, text: str) -> bool:
        if self._prefix is not None or (self._has_begun and self._kind is None):
            return False
        return text.lstrip()[:1] in ("{", "[")

    def _open(self, piece: Piece) -> Iterator[Taken]:
        self._has_begun = self._has_begun or self._prefix is not None
        self._documents = Documents()
        self._began_at = piece.number
        yield from self._go_on(piece)

    def _go_on(self, piece: Piece) -> Iterator[Taken]:
        """Take in the next piece of a document, or give the document up if it cannot go on so."""
        assert self._documents is not None
        text, is_frame = piece.text + "\n" * piece.is_end, False
        if piece.is_start and piece.is_end and self._prefix is None:
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

    def _give_up(self, piece: Piece | None = None) -> Iterator[Taken]:
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
        if not self._has_begun:
            self._kind = kind_of(value)
            self._has_begun = True
        if self._prefix is None and self._kind is FRAMES:
            return self._held.add(value, source, place(number))
        kind = self._kind if self._prefix is None else FRAMES
        return frames_of_document(value, source, kind, place(number), self._lines)


def _prefix_of(text: str) -> re.Pattern[str] | None:
    for declared, prefix in _PREFIXES:
        if declared.match(text.rstrip()):
            return prefix
    return None

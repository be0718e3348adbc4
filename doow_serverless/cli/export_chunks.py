"""Joins the chunks of lines that container runtimes have cut.

Docker and containerd cut lines at 16 kB. A chunk is a part of somebody's line, so it is no frame by
itself, whatever it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Part

from .export_bytes import Unreadable
from .export_findings import Stray, frames_or_stray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .export_findings import Taken
    from .export_messages import Chunk

_LONGEST_LINE = 64 * 1024
# Characters; versions before format 2 wrote frames of up to 28,000, which were cut in two.
_MOST_OPEN = 1_000
_NO_END = "is a whole record in a line that has not ended when the file does"


class _Line:
    """A line that has not ended."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.is_too_long = False
        self._chunks: list[str] = []
        self._size = 0

    def add(self, chunk: str) -> Iterator[Stray]:
        """Take in a chunk; report the markers of a line that becomes too long for a frame."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > _LONGEST_LINE:
            text = "".join(self._chunks)
            count = text.count(MARKER)
            if count:
                yield Stray(self.origin, count)
            tail = text[1 - len(MARKER) :]  # A marker may be cut in two.
            self._chunks, self._size, self.is_too_long = [tail], len(tail), True

    def read(self) -> Iterator[Taken]:
        """Return what the whole line holds."""
        text = "".join(self._chunks)
        if not self.is_too_long:
            yield from frames_or_stray(text, self.origin)
        elif MARKER in text:
            yield Stray(self.origin, text.count(MARKER))


class ChunkedLines:
    """Puts the lines of a container's streams together."""

    def __init__(self) -> None:
        self._open: dict[str, _Line] = {}

    def add(self, chunk: Chunk) -> Iterator[Taken]:
        """Take in a chunk; yield what its line holds, if it is the last.

        Raises:
            Unreadable: Too many lines have begun. To forget one would make its next chunk a line.
        """
        line = self._open.pop(chunk.stream, None)
        if line is None and chunk.is_last:
            yield from frames_or_stray(chunk.text, chunk.origin)
            return
        line = line or _Line(chunk.origin)
        yield from line.add(chunk.text)
        if chunk.is_last:
            yield from line.read()
            return
        self._open[chunk.stream] = line
        if len(self._open) > _MOST_OPEN:
            raise Unreadable(f"more than {_MOST_OPEN:,} lines of containers have not ended in it")

    def end(self) -> Iterator[Taken]:
        """Report the frames in lines that have not ended when the file does: they may go on."""
        for line in self._open.values():
            for one in line.read():
                yield Stray(line.origin, 1, _NO_END) if isinstance(one, Part) else one
        self._open.clear()

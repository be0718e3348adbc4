"""Files of objects that are frames: lines which somebody has parsed and written again.

No tool marks such files, and an application may write such an object, too. So they count only if
the file holds nothing else, which its end tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import frame_of

from .export_bytes import Unreadable
from .export_findings import Stray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless._frames.reader import Damage, Part

    from .export_findings import Taken

_MOST_TEXT = 256 * 1024 * 1024
"""Characters of a file that are held in memory."""


class HeldFrames:
    """The frames in the objects of a file, until it has ended."""

    def __init__(self) -> None:
        self._held: list[tuple[Part | Damage, str]] = []
        self._size = 0
        self._is_other = False

    def add(self, value: Any, source: str, origin: str) -> Iterator[Taken]:
        """Take in a document; a list may hold nulls in the place of lines that were taken.

        Args:
            value: The document.
            source: Its text.
            origin: Where it stood, in words for an operator.

        Raises:
            Unreadable: The file is too long.
        """
        values = value if isinstance(value, list) else [value]
        found = [frame_of(one) if isinstance(one, dict) else None for one in values]
        others = [one for one, frame in zip(values, found, strict=True) if frame is None]
        if self._is_other or any(one is not None for one in others):
            yield from self.drop()
            if MARKER in source:
                yield Stray(origin, source.count(MARKER))
            return
        self._size += len(source)
        if self._size > _MOST_TEXT:
            raise Unreadable("it holds objects that somebody has parsed, of more than 256 MB")
        self._held += ((frame, origin) for frame in found if frame is not None)

    def drop(self) -> Iterator[Stray]:
        """Take note that the file holds something else: its objects are an application's."""
        self._is_other = True
        for _, origin in self._held:
            yield Stray(origin)
        self._held.clear()

    def end(self) -> Iterator[Taken]:
        """Yield the frames, at the end of the file."""
        for frame, _ in self._held:
            yield frame
        self._held.clear()

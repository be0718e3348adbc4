"""Takes the frames out of one document of an export, and accounts for every marker in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doow_serverless._frames.envelopes import Line, Unread
from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import frame_of

from .export_findings import Stray, frames_or_stray
from .export_kinds import unwrapped
from .export_messages import Chunk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .export_chunks import ChunkedLines
    from .export_findings import Taken
    from .export_kinds import Kind


def frames_of_document(
    value: Any, source: str, kind: Kind | None, origin: str, lines: ChunkedLines
) -> Iterator[Taken]:
    """Yield the frames that a document of ``kind`` wraps, and report all other markers.

    Args:
        value: The document.
        source: Its text.
        kind: Its kind; None if it is no export, so that nothing in it is a frame.
        origin: Where it stood.
        lines: The lines of containers that have begun in the documents before it.
    """
    settled, is_reported = 0, False
    for found in unwrapped(value, kind, origin) if kind else ():
        if isinstance(found, Line):
            settled += found.text.count(MARKER)
            yield from frames_or_stray(found.text, found.origin)
        elif isinstance(found, Chunk):
            settled += found.text.count(MARKER)
            yield from lines.add(found)
        elif isinstance(found, Unread):
            is_reported = True
            yield found
        else:
            one = frame_of(found.fields)
            if one is not None:
                settled += 1
                yield one
    rest = source.count(MARKER) - settled
    if rest > 0 and not is_reported:
        yield Stray(origin, rest)

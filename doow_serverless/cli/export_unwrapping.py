"""Takes the frames out of one document of an export, and accounts for every marker in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from doow_serverless._frames.envelopes import Line, Unread
from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Damage, Part, frame_of, read_frames

from .export_kinds import unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .export_kinds import Kind


class Stray(NamedTuple):
    """Markers within text that is no whole frame, and where they stood."""

    origin: str
    markers: int = 1


if TYPE_CHECKING:
    Taken = Part | Damage | Stray | Unread


def frames_of_document(value: Any, source: str, kind: Kind | None, origin: str) -> Iterator[Taken]:
    """Yield the frames that a document of ``kind`` wraps, and report all other markers.

    Args:
        value: The document.
        source: Its text.
        kind: Its kind; None if it is no export, so that nothing in it is a frame.
        origin: Where it stood.
    """
    settled, is_reported = 0, False
    for found in unwrapped(value, kind, origin) if kind else ():
        if isinstance(found, Line):
            settled += found.text.count(MARKER)
            yield from frames_or_stray(found.text, found.origin)
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


def frames_or_stray(text: str, origin: str) -> Iterable[Part | Damage | Stray]:
    """Return the frames that ``text`` consists of; a `Stray` if it only mentions the marker."""
    count = text.count(MARKER)
    return (read_frames(text) or [Stray(origin, count)]) if count else ()

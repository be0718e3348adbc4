"""Takes the frames out of one document of an export, and accounts for every marker in it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NamedTuple

from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Damage, Part, frame_of, read_frames

from .export_bytes import Unreadable, blocks_of
from .export_documents import values_in
from .export_kinds import kind_of, unwrapped
from .export_messages import Fields, Line, Nested, Unread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .export_kinds import Kind

_MOST_LEVELS = 6
# Of messages within documents within messages: a subscription, in the document of a failure, in a
# notification, in a message of a queue, and room to spare.
_LONGEST_CONTENT = 64 * 1024 * 1024
_AGGREGATED = b"\xf3\x89\x9a\xc2"


class Stray(NamedTuple):
    """Markers within text that is no whole frame, and where they stood."""

    origin: str
    markers: int = 1


if TYPE_CHECKING:
    Taken = Part | Damage | Stray | Unread


def frames_of_document(
    value: Any, source: str, kind: Kind | None, origin: str, level: int = 0
) -> Iterator[Taken]:
    """Yield the frames that a document of ``kind`` wraps, and a `Stray` for all other markers.

    Args:
        value: The document.
        source: Its text.
        kind: Its kind; None if it is no export, so that nothing in it is a frame.
        origin: Where it stood.
        level: How many documents it stands in.
    """
    settled = 0
    for found in unwrapped(value, kind, origin) if kind else ():
        if isinstance(found, Line):
            settled += found.text.count(MARKER)
            yield from frames_or_stray(found.text, found.origin)
        elif isinstance(found, Fields):
            one = frame_of(found.fields)
            if one is not None:
                settled += 1
                yield one
        elif isinstance(found, Nested):
            if isinstance(found.content, str):
                settled += found.content.count(MARKER)
            yield from _nested(found, level + 1)
        else:
            yield found
    rest = source.count(MARKER) - settled
    if rest > 0:
        yield Stray(origin, rest)


def frames_or_stray(text: str, origin: str) -> Iterable[Part | Damage | Stray]:
    """Return the frames that ``text`` consists of; a `Stray` if it only mentions the marker."""
    count = text.count(MARKER)
    return (read_frames(text) or [Stray(origin, count)]) if count else ()


def _nested(found: Nested, level: int) -> Iterator[Taken]:
    if level > _MOST_LEVELS:
        yield Unread(found.origin, "is nested too deeply")
        return
    if isinstance(found.content, bytes) and found.content.startswith(_AGGREGATED):
        yield Unread(found.origin, "is aggregated by the Kinesis Producer Library")
        return
    try:
        text = _text_of(found.content)
    except Unreadable as problem:
        yield Unread(found.origin, f"cannot be read: {problem}")
        return
    values = values_in(text) if text[:1] in ("{", "[") and not read_frames(text) else None
    if values is None:
        yield from frames_or_stray(text, found.origin)
        return
    for value, source in values:
        kind = kind_of(value, found.kinds)
        yield from frames_of_document(value, source, kind, found.origin, level)


def _text_of(content: str | bytes) -> str:
    if isinstance(content, str):
        return content.strip()
    blocks: list[str] = []
    size = 0
    for block in blocks_of(io.BufferedReader(io.BytesIO(content))):
        blocks.append(block)
        size += len(block)
        if size > _LONGEST_CONTENT:
            raise Unreadable("it unpacks to more than 64 MB")
    return "".join(blocks).strip()

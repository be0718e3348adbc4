"""Findings in exports: frames, and what is reported besides."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from doow_serverless._frames.format import MARKER
from doow_serverless._frames.reader import Damage, Part, read_frames

if TYPE_CHECKING:
    from collections.abc import Iterable

    from doow_serverless._frames.envelopes import Unread


class Stray(NamedTuple):
    """Markers within text that is no whole frame, and where they stood.

    Attributes:
        origin: Where they stood, in words for an operator.
        markers: How many there are.
        why: The reason, if it is not that the text is no frame.
    """

    origin: str
    markers: int = 1
    why: str = ""


if TYPE_CHECKING:
    Taken = Part | Damage | Stray | Unread


def frames_or_stray(text: str, origin: str) -> Iterable[Part | Damage | Stray]:
    """Return the frames that ``text`` consists of; a `Stray` if it only mentions the marker."""
    count = text.count(MARKER)
    return (read_frames(text) or [Stray(origin, count)]) if count else ()

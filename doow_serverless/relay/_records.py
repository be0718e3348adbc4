"""Finds the records in what a platform hands over: text, gzip, or JSON with text somewhere in it.

A record counts only where it is a whole line, or an object of its own: a text of somebody else's
within a line of the log, such as a header that was logged, reports no usage.
"""

from __future__ import annotations

import json
import zlib

from doow_serverless._frames.format import GZIP, MARKER
from doow_serverless._frames.reader import Damage, frame_of, read_frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from doow_serverless._frames.reader import Part

MAX_TEXT = 64 * 1024 * 1024
"""Bytes that what comes gzipped may unpack to: far above what any platform packs."""
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_LEVELS = 32
"""Of nesting: no envelope has as many, and following a hostile one to its end takes the stack."""
_BEGINNING = f'{{"{MARKER}"'


def records_in(data: bytes | str) -> Iterator[Part | Damage]:
    """The records of our format in ``data``, in their order, and what was one and cannot be read.

    Args:
        data: What came, as it came. CloudWatch, diagnostic settings and drains wrap lines as
            strings in JSON, some of them in gzip, some a line of JSON for each.
    """
    text = _unpacked(data) if isinstance(data, bytes) else data
    if text is None:
        yield Damage(None, "", "is no whole gzip, or too large")
    else:
        yield from _in_text(text, 0)


def _unpacked(data: bytes) -> str | None:
    """The text, of all members where it is gzip (RFC 1952, 2.2); None where it is cut or huge."""
    text = b""
    while data[:2] == _GZIP_MAGIC:
        unpacker = zlib.decompressobj(GZIP)
        try:
            text += unpacker.decompress(data, MAX_TEXT - len(text))
        except (zlib.error, ValueError):
            return None
        if not unpacker.eof or len(text) >= MAX_TEXT:
            return None
        data = unpacker.unused_data
    return (text or data).decode(errors="replace")


def _in_text(text: str, level: int) -> Iterator[Part | Damage]:
    if MARKER not in text or level > _MOST_LEVELS:
        return
    value = _parsed(text)
    if value is not None:
        yield from _in_value(value, level)
    elif "\n" in text.strip():
        for line in text.split("\n"):
            yield from _in_text(line, level + 1)
    elif text.lstrip().startswith(_BEGINNING):  # It is cut off, or altered.
        yield from filter(None, [read_frame(text)])


def _in_value(value: object, level: int) -> Iterator[Part | Damage]:
    if level > _MOST_LEVELS:
        return
    if isinstance(value, str):
        yield from _in_text(value, level + 1)
    elif isinstance(value, dict):
        if MARKER in value:
            yield from filter(None, [frame_of(value)])
        else:
            for each in value.values():
                yield from _in_value(each, level + 1)
    elif isinstance(value, list):
        for each in value:
            yield from _in_value(each, level + 1)


def _parsed(text: str) -> object | None:
    if not text.lstrip().startswith(("{", "[", '"')):
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value

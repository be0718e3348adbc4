"""Readers of gzip, base64 and JSON for hostile input: each is linear, bounded, and fails alike.

All of them raise ValueError, with the fault in words that continue the name of the input.
"""

from __future__ import annotations

import json
import re
import zlib

from .format import GZIP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_TEXT = 64 * 1024 * 1024
"""Bytes that gzip may unpack to: far more than any platform packs."""
GZIP_MAGIC = b"\x1f\x8b"
_MOST_GZIPS = 4
"""Gzip within gzip: Firehose packs CloudWatch's messages, which are gzip already, once more."""
_FIRST_BLOCK = 4 * 1024
_LARGEST_BLOCK = 1024 * 1024
_MOST_NAMES = 8
_BLANK = re.compile(r"[ \t\r\n]*")
_QUOTE = re.compile(r'\\.|"', re.DOTALL)
# Nothing here counts with numbers, and to read an int of a million digits is quadratic.
_DECODER = json.JSONDecoder(parse_int=float)


def gunzip(data: bytes) -> bytes:
    """Return the contents of all members of a gzip file (RFC 1952, 2.2)."""
    view = memoryview(data)
    contents: list[bytes] = []
    at, room = 0, MAX_TEXT
    while at < len(view):
        if view[at : at + 2] != GZIP_MAGIC:
            raise ValueError("is gzip followed by something else")
        # Block by block: zlib copies the rest of the block behind each member, and a copy of all
        # that follows would make many small members quadratic.
        unpacker, size = zlib.decompressobj(GZIP), _FIRST_BLOCK
        while not unpacker.eof:
            block = view[at : at + size]
            if not block:
                raise ValueError("is gzip that is cut off")
            try:
                text = unpacker.decompress(block, room + 1)
            except zlib.error:
                raise ValueError("is gzip that is damaged") from None
            contents.append(text)
            room -= len(text)
            if room < 0:
                raise ValueError(f"unpacks to more than {MAX_TEXT // 1024 // 1024} MB")
            at += len(block) - len(unpacker.unused_data)
            size = min(2 * size, _LARGEST_BLOCK)
    return b"".join(contents)


def to_text(data: bytes) -> str:
    """Return UTF-8 ``data`` as text, unpacked if it is gzip, or gzip of gzip."""
    for _ in range(_MOST_GZIPS):
        if not data.startswith(GZIP_MAGIC):
            break
        data = gunzip(data)
    if data.startswith(GZIP_MAGIC):
        raise ValueError("is gzip within gzip, too many times")
    if len(data) > MAX_TEXT:
        raise ValueError(f"has more than {MAX_TEXT // 1024 // 1024} MB")
    return data.decode("utf-8-sig", errors="replace")


def from_base64(text: object) -> bytes:
    """Return the bytes that ``text`` stands for (RFC 4648, 4)."""
    from base64 import b64decode

    if not isinstance(text, str):
        raise ValueError("holds no base64")
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise ValueError("holds no valid base64") from None


def from_json(text: str) -> Any:
    """Return the value that ``text`` is the JSON of; its numbers are all floats."""
    value, end = next_json(text, 0)
    if end < len(text):
        raise ValueError("is JSON followed by something else")
    return value


def next_json(text: str, at: int, *, unique_names: bool = False) -> tuple[Any, int]:
    """Return the first JSON value in ``text`` from ``at`` on, and the place where the next begins.

    Args:
        text: JSON values, with or without white space between them.
        at: Where to begin.
        unique_names: Refuse objects in which a name occurs twice.
    """
    decoder = _STRICT_DECODER if unique_names else _DECODER
    try:
        value, end = decoder.raw_decode(text, _after_blank(text, at))
    except RecursionError:
        raise ValueError("is JSON that is nested too deeply") from None
    except ValueError:
        raise ValueError("is no valid JSON") from None
    return value, _after_blank(text, end)


def _after_blank(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    assert blank is not None  # It may be empty.
    return blank.end()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice")
    return found


_STRICT_DECODER = json.JSONDecoder(parse_int=float, object_pairs_hook=_unique)


def restore_quotes(text: str) -> str:
    """Return ``text`` with double quotes for the single ones that stand outside of its strings.

    JSON has no single quotes there. Each of them was a double quote, if a program has replaced all
    double quotes of a part of the text, and had removed the single quotes from that part before.
    """
    pieces: list[str] = []
    start, is_string = 0, False
    for found in _QUOTE.finditer(text):
        if found[0] != '"':
            continue  # An escaped character ends no string.
        piece = text[start : found.end()]
        pieces.append(piece if is_string else piece.replace("'", '"'))
        start, is_string = found.end(), not is_string
    rest = text[start:]
    pieces.append(rest if is_string else rest.replace("'", '"'))
    return "".join(pieces)


def path_of(word: str, value: object) -> str | None:
    """Return the path of a name or a string in JSON ``value`` that contains ``word``, or None.

    An empty path means the value itself.
    """
    # No recursion, and no paths of all that does not hold it.
    todo: list[tuple[object, Any]] = [(value, None)]
    while todo:
        one, place = todo.pop()
        if isinstance(one, str):
            if word in one:
                return _written(place)
        elif isinstance(one, dict):
            for name, item in one.items():
                if word in name:
                    return _written(place)
                todo.append((item, (place, name)))
        elif isinstance(one, list):
            todo.extend((item, place) for item in one)
    return None


def _written(place: Any) -> str:
    names: list[str] = []
    while place is not None:
        place, name = place
        names.append(name)
    return ".".join(names[::-1][:_MOST_NAMES])

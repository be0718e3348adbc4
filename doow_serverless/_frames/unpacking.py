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

MAX_TEXT = 16 * 1024 * 1024
"""Bytes that one input may unpack to.

CloudWatch packs log events that came in calls of PutLogEvents, of 1 MiB at the most, and into one
record of a stream no more than 1 MB of gzip. In JSON a control character takes six times its
length. A text of this size takes up to nine times as much memory while it is read.
"""
GZIP_MAGIC = b"\x1f\x8b"
_MOST_GZIPS = 4
"""Gzip within gzip: Firehose packs CloudWatch's messages, which are gzip already, once more."""
_FIRST_BLOCK = 4 * 1024
_LARGEST_BLOCK = 1024 * 1024
_PEEK = 64 * 1024
_MOST_NAMES = 8
_MOST_VALUES = 500_000
"""Strings, objects, lists and commas in one input, outside of strings.

A message of CloudWatch has twelve for each of its events, of which there are 10,000 at the most. An
object with one value takes 230 bytes, thirty times the length of its JSON, and counts as three.
"""
_SMALL = 1024 * 1024
"""Bytes of an input whose values are not counted: whatever it holds, it takes little memory."""
_BLANK = re.compile(r"[ \t\r\n]*")
_BARE_PROPERTIES = re.compile(r'"properties"[ \t\r\n]*:[ \t\r\n]*(?=\{\')')
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


def unpacked(data: bytes) -> bytes:
    """Return ``data`` as it is, or unpacked if it is gzip, or gzip of gzip."""
    for _ in range(_MOST_GZIPS):
        if not data.startswith(GZIP_MAGIC):
            break
        data = gunzip(data)
    if data.startswith(GZIP_MAGIC):
        raise ValueError("is gzip within gzip, too many times")
    if len(data) > MAX_TEXT:
        raise ValueError(f"has more than {MAX_TEXT // 1024 // 1024} MB")
    return data


def to_text(data: bytes) -> str:
    """Return the JSON ``data``, in UTF-8, as text."""
    refuse_many_values(data)
    return data.decode("utf-8-sig", errors="replace")


def refuse_many_values(data: bytes) -> None:
    """Raise ValueError if the values of JSON ``data`` would take too much memory."""
    if len(data) <= _SMALL:
        return
    # In bytes, and without a loop over them: a string ends at a quote that is not escaped.
    data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    values = data.count(b'"') // 2
    if values <= _MOST_VALUES:
        outside = b"".join(data.split(b'"')[::2])
        values += sum(outside.count(mark) for mark in (b"{", b"[", b","))
    if values > _MOST_VALUES:
        raise ValueError("is JSON of too many values")


def peek(text: str) -> bytes:
    """Return the beginning of what ``text`` packs, at most 64 kB: gzip, or gzip of gzip, in base64.

    Anybody may have written the text, so nothing more is unpacked. Other text holds nothing.
    """
    try:
        data = from_base64(text[: 2 * _PEEK])
        for _ in range(_MOST_GZIPS):
            if not data.startswith(GZIP_MAGIC):
                break
            data = zlib.decompressobj(GZIP).decompress(data, _PEEK)
    except (ValueError, zlib.error):
        return b""
    return data


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


# ── properties of a function app ────────────────────────────────────────────────────────────────

_HOST_FIELDS = frozenset({
    "appName", "roleInstance", "message", "category", "hostVersion", "functionInvocationId",
    "functionName", "hostInstanceId", "activityId", "level", "levelId", "processId",
    "exceptionDetails", "exceptionMessage", "exceptionType", "eventId", "eventName",
})  # fmt: skip
"""All that the host's AzureMonitorDiagnosticLogger writes, the category always.
https://github.com/Azure/azure-functions-host/tree/dev/src/WebJobs.Script.WebHost/Diagnostics"""


def restore_properties(text: str) -> dict[str, Any] | None:
    """Return the properties of a log record that ``text`` is, as hosts on Linux write them.

    These hosts drop single quotes from the JSON, and then replace the double ones by single ones,
    so that the reverse restores it exactly. Should a host not drop them, then a logged text can add
    fields, also in two places. But it cannot get rid of the category that the host writes: only an
    object or an array that begins in one place and ends in the other could swallow that, and no
    field has such a value. So the text can at most repeat the category, and an object that repeats
    a name is refused.
    https://github.com/Azure/azure-functions-host/issues/7864

    Returns:
        None unless the fields are those that the host writes, each once, with scalar values, the
        category among them.
    """
    found = _host_object(text)
    return found[0] if found is not None and found[1] == len(text) else None


def restore_quotes(text: str) -> str:
    """Return JSON ``text`` with the double quotes of properties that a host on Linux has replaced.

    Some exports insert them as they are, so that the whole is no JSON. Only an object that stands
    as the field ``properties`` is restored, under the conditions of `restore_properties`. The host
    has left no double quotes in it, so no logged text can make another such place.
    """
    pieces: list[str] = []
    at = 0
    for place in _BARE_PROPERTIES.finditer(text):
        start, next_quote = place.end(), text.find('"', place.end())
        part = text[start:] if next_quote < 0 else text[start:next_quote]
        found = _host_object(part)
        if found is not None:
            pieces += text[at:start], part[: found[1]].replace("'", '"')
            at = start + found[1]
    pieces.append(text[at:])
    return "".join(pieces)


def _host_object(text: str) -> tuple[dict[str, Any], int] | None:
    """Return the properties with which ``text`` begins, and where they end."""
    if '"' in text:
        return None
    try:
        fields, end = next_json(text.replace("'", '"'), 0, unique_names=True)
    except ValueError:
        return None
    is_of_host = (
        isinstance(fields, dict)
        and fields.keys() <= _HOST_FIELDS
        and "category" in fields
        and not any(isinstance(value, (dict, list)) for value in fields.values())
    )
    return (fields, end) if is_of_host else None


# ── searching ───────────────────────────────────────────────────────────────────────────────────


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

"""From the bytes of an input to its text: gzip at several levels, UTF-8 and UTF-16."""

from __future__ import annotations

import codecs
import gzip
import io
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"
_ZIP_HEADER = struct.Struct("<4sHHH16xH2x")
_ZIP_METHODS = {*range(20), *range(93, 100)}
_LATEST_ZIP = 63
_MOST_LEVELS = 3
# Firehose compresses what CloudWatch has compressed; each level may hold a thousand times more.
_UTF_16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
_ENOUGH = 4 * 1024
# Bytes by which an encoding is told.
_LEAST_ASCII = 1 / 8
# Of the characters in the first block of UTF-16. Text in UTF-8 holds no zero bytes.


class Unreadable(Exception):
    """An input cannot be read, or not to its end."""


def blocks_of(stream: io.BufferedReader) -> Iterator[str]:
    """Yield the text of ``stream`` block by block, unpacked.

    Raises:
        Unreadable: It cannot be read, its gzip is damaged or cut off, it is a zip archive, or its
            encoding is not clear.
    """
    try:
        stream = _unpacked(stream)
        start = b""
        while len(start) < _ENOUGH and (block := stream.read1(_BLOCK)):
            start += block
        decode = codecs.getincrementaldecoder(_encoding_of(start))("replace").decode
        yield decode(start)
        while block := stream.read1(_BLOCK):
            yield decode(block)
        yield decode(b"", True)
    except (OSError, EOFError, zlib.error) as problem:
        raise Unreadable(getattr(problem, "strerror", None) or str(problem)) from None


def _encoding_of(start: bytes) -> str:
    """Return the encoding of a text that begins with ``start``.

    PowerShell writes the output of a program as UTF-16, with a mark. A log may also begin with the
    same two bytes because a program has written them, so more than the mark must look like it.

    Raises:
        Unreadable: It may be either.
    """
    encoding = _UTF_16.get(start[:2])
    if encoding is None:
        return "utf-8-sig"
    high_bytes = start[3::2] if encoding == "utf-16-le" else start[2::2]
    zeros = high_bytes.count(0)
    if not zeros:
        return "utf-8"
    if zeros < len(high_bytes) * _LEAST_ASCII:
        raise Unreadable("it begins as UTF-16 does, but little of it looks so: convert it to UTF-8")
    return "utf-16"


def _is_gzip(start: bytes) -> bool:
    """Return whether a file that begins so is gzip: RFC 1952, 2.3.

    There is one method of compression, and there are five flags.
    """
    return start.startswith(_GZIP_MAGIC + b"\x08") and start[3:4] < b"\x20"


def _is_zip(start: bytes) -> bool:
    """Return whether a file that begins so is a zip archive: APPNOTE.TXT, 4.3.7 and 4.4.

    The header of its first member names a version, a method of compression and a file.
    """
    if len(start) < _ZIP_HEADER.size or not start.startswith(_ZIP_MAGIC):
        return False
    _, version, _, method, name_length = _ZIP_HEADER.unpack_from(start)
    return version & 0xFF <= _LATEST_ZIP and method in _ZIP_METHODS and name_length > 0


def _unpacked(stream: io.BufferedReader) -> io.BufferedReader:
    for _ in range(_MOST_LEVELS):
        if not _is_gzip(stream.peek(4)):
            break
        stream = io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"))
    start = stream.peek(_ZIP_HEADER.size)
    if _is_zip(start):
        raise Unreadable("it is a zip archive: unpack it first")
    if _is_gzip(start):
        raise Unreadable(f"it is gzip within gzip, more than {_MOST_LEVELS} levels deep")
    return stream

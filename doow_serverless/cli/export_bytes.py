"""From the bytes of an input to its text: gzip at several levels, UTF-8 and UTF-16."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 64 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_ZIP_MAGIC = b"PK\x03\x04"
_MOST_LEVELS = 3
# Firehose compresses what CloudWatch has compressed; each level may hold a thousand times more.
_UTF_16 = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


class Unreadable(Exception):
    """An input cannot be read, or not to its end."""


def blocks_of(stream: io.BufferedReader) -> Iterator[str]:
    """Yield the text of ``stream`` block by block, unpacked.

    Raises:
        Unreadable: It cannot be read, its gzip is damaged or cut off, or it is a zip archive.
    """
    try:
        stream = _unpacked(stream)
        # PowerShell writes the output of a program as UTF-16.
        encoding = _UTF_16.get(stream.peek(2)[:2], "utf-8-sig")
        decode = codecs.getincrementaldecoder(encoding)("replace").decode
        while block := stream.read1(_BLOCK):
            yield decode(block)
        yield decode(b"", True)
    except (OSError, EOFError, zlib.error) as problem:
        raise Unreadable(getattr(problem, "strerror", None) or str(problem)) from None


def _unpacked(stream: io.BufferedReader) -> io.BufferedReader:
    for _ in range(_MOST_LEVELS):
        if stream.peek(2)[:2] != _GZIP_MAGIC:
            break
        stream = io.BufferedReader(gzip.GzipFile(fileobj=stream, mode="rb"))
    start = stream.peek(4)[:4]
    if start == _ZIP_MAGIC:
        raise Unreadable("it is a zip archive: unpack it first")
    if start[:2] == _GZIP_MAGIC:
        raise Unreadable(f"it is gzip within gzip, more than {_MOST_LEVELS} levels deep")
    return stream

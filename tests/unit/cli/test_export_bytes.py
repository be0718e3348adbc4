"""Files are unpacked and decoded by more than the few bytes with which they begin."""

from __future__ import annotations

import gzip
import io
import zipfile
from typing import Any

import pytest

from doow_serverless.cli.export_bytes import Unreadable, blocks_of

TEXT = "START\r\nwhat a program has written\r\n"


def text_of(data: bytes) -> str:
    return "".join(blocks_of(io.BufferedReader(io.BytesIO(data))))


STARTS = {
    "a mark of UTF-16": b"\xff\xfe",
    "the other mark of UTF-16": b"\xfe\xff",
    "a mark and text": b"\xff\xfe caf\xe9",
    "a mark and a zero": b"\xff\xfe\x00",
    "gzip": b"\x1f\x8b",
    "gzip and more": b"\x1f\x8b\x08\xffx",
    "zip": b"PK\x03\x04",
    "zip and text": b"PK\x03\x04x",
    "zip and a long text": b"PK\x03\x04" + b"x" * 100,
}


@pytest.mark.parametrize("name", STARTS)
def test_a_log_that_begins_with_bytes_of_a_format(name: str) -> None:
    """A program may write a few bytes; they do not hide the lines after them."""
    data = STARTS[name] + f"\n{TEXT}".encode()

    assert text_of(data) == data.decode("utf-8", "replace")


FIRST = ("START", "", "ログの始まり" * 30)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("first", FIRST, ids=["ASCII", "nothing", "Japanese"])
def test_utf_16(encoding: str, first: str) -> None:
    """Also text of which the most is not ASCII, and a file that comes byte by byte."""
    text = f"{first}\r\n{TEXT}"
    data = f"\ufeff{text}".encode(encoding)

    assert text_of(data) == text
    slow: Any = io.BufferedReader(Slow(data))
    assert "".join(blocks_of(slow)) == text


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_what_may_be_utf_16(mark: bytes) -> None:
    """It is refused: read in the wrong way, it would seem to hold no record."""
    with pytest.raises(Unreadable, match="convert it to UTF-8"):
        text_of(mark + b"x\0\0x" + TEXT.encode())


class Slow(io.RawIOBase):
    """A stream that gives a byte at a time, as a pipe may."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        one = self._data.read(1)
        buffer[: len(one)] = one
        return len(one)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_zip_archive(method: int) -> None:
    """It is recognised by the header of its first file, also within gzip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.log", TEXT)

    for data in (file.getvalue(), gzip.compress(file.getvalue())):
        with pytest.raises(Unreadable, match="unpack it first"):
            text_of(data)

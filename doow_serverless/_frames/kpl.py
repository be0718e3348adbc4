"""Unpacks the Kinesis Producer Library's aggregation: many user records in one Kinesis record.

The format: four magic bytes, a protobuf message (`AggregatedRecord`), and the MD5 of the message.
https://github.com/awslabs/amazon-kinesis-producer/blob/master/aggregation-format.md

AWS's own package for it (aws-kinesis-agg 1.2.3, of June 2022) is not used. It imports `six`, which
it does not require, and needs protobuf at run time. It puts directories into ``sys.path``. A record
whose checksum is wrong it hands on as if it were not aggregated; a relay has to report that.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAGIC = b"\xf3\x89\x9a\xc2"
"""No text in UTF-8 begins so: after F3 three continuation bytes follow, and C2 is none."""
_DIGEST = 16
_RECORDS = 3
"""In an aggregated record, the field of the user records."""
_DATA = 3
"""In a user record, the field of the user's bytes."""
_VARINT, _FIXED_64, _BYTES, _FIXED_32 = 0, 1, 2, 5
"""Wire types. https://protobuf.dev/programming-guides/encoding/"""
_LONGEST_VARINT = 10


def unpack(data: bytes) -> list[bytes]:
    """Return the user records in an aggregated record, which begins with :data:`MAGIC`.

    Raises:
        ValueError: The record is not whole.
    """
    from hashlib import md5

    message, digest = data[len(MAGIC) : -_DIGEST], data[-_DIGEST:]
    if len(data) < len(MAGIC) + _DIGEST:
        raise ValueError("is a KPL aggregated record that is cut off")
    # MD5 is the format's choice, against accidents alone.
    if md5(message, usedforsecurity=False).digest() != digest:
        raise ValueError("is a KPL aggregated record whose checksum is wrong")
    view = memoryview(message)
    return [_user_data(one) for number, one in _fields(view) if number == _RECORDS]


def _user_data(record: memoryview) -> bytes:
    found: memoryview | None = None
    for number, value in _fields(record):
        if number == _DATA:
            found = value
    if found is None:
        raise ValueError("is a KPL aggregated record with a user record without data")
    return bytes(found)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The fields of a protobuf message that hold bytes: their numbers and values."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_FIXED_64, _FIXED_32):
            length = 8 if kind == _FIXED_64 else 4
        else:
            raise ValueError("is a KPL aggregated record that holds no valid protobuf")
        end = at + length
        if end > len(message):
            raise ValueError("is a KPL aggregated record that holds no valid protobuf")
        if kind == _BYTES:
            yield key >> 3, message[at:end]
        at = end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number that stands at ``at``, and where the next field begins."""
    number = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        number |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return number, at + place + 1
    raise ValueError("is a KPL aggregated record that holds no valid protobuf")

"""Aggregated Kinesis records are unpacked, and damage to them is noticed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from doow_serverless._frames import kpl


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def sealed(message: bytes) -> bytes:
    return kpl.MAGIC + message + hashlib.md5(message).digest()


def aggregated(texts: list[bytes], *, keys: bytes = b"pk") -> bytes:
    """What the library writes for ``texts``: a table of partition keys, and the user records."""
    records = [field(3, varint(1 << 3) + varint(0) + field(3, text)) for text in texts]
    return sealed(field(1, keys) + b"".join(records))


@given(st.lists(st.binary()), st.binary())
def test_user_records_come_out_as_they_went_in(texts: list[bytes], keys: bytes) -> None:
    """All user records come out, in their order, and nothing of the partition keys."""
    assert kpl.unpack(aggregated(texts, keys=keys)) == texts


def test_a_record_of_aws_own_package() -> None:
    """A record that aws-kinesis-agg 1.2.3 has made, of two user records, is unpacked."""
    record = bytes.fromhex(RECORD_OF_AWS)
    assert kpl.unpack(record) == [b'{"log":"one"}\n', b"two"]


RECORD_OF_AWS = (
    "f3899ac20a02706b0a056f7468657212033132331a1208001a0e7b226c6f67223a226f6e65227d0a"
    "1a09080110001a0374776f51da1a9889d650e14db20fba371b5a3b"
)


def test_fields_that_the_format_may_get_are_skipped() -> None:
    """Explicit hash keys, tags, and fields of other wire types change no user record."""
    extra = (
        varint(9 << 3 | 1) + bytes(8) + varint(10 << 3 | 5) + bytes(4) + varint(11 << 3) + b"\x05"
    )
    tag = field(4, field(1, b"name") + field(2, b"value"))
    record = field(3, varint(2 << 3) + varint(300) + field(3, b"text") + tag + extra)
    assert kpl.unpack(sealed(extra + field(2, b"hash") + record)) == [b"text"]


WHOLE = aggregated([b"text"])
CHECKSUM = "is a KPL aggregated record whose checksum is wrong"
PROTOBUF = "is a KPL aggregated record that holds no valid protobuf"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (kpl.MAGIC, "is a KPL aggregated record that is cut off"),
        (WHOLE[:-1], CHECKSUM),
        (WHOLE[:10] + b"!" + WHOLE[11:], CHECKSUM),
        (sealed(b"\x1a\x05abc"), PROTOBUF),
        (sealed(b"\x80" * 20), PROTOBUF),
        (sealed(b"\x1b"), PROTOBUF),
        (sealed(b"\x19abc"), PROTOBUF),
        (sealed(field(3, b"")), "is a KPL aggregated record with a user record without data"),
    ],
)
def test_damage_is_noticed(data: bytes, why: str) -> None:
    """A record that is cut, altered, or no protobuf raises ValueError with the reason."""
    with pytest.raises(ValueError, match=f"^{why}$"):
        kpl.unpack(data)


@given(st.binary())
@example(field(3, field(3, b"x")))
def test_no_message_raises_anything_else(message: bytes) -> None:
    """Whatever stands between magic bytes and checksum, it is unpacked or refused."""
    try:
        found = kpl.unpack(sealed(message))
    except ValueError:
        found = []
    assert sum(map(len, found)) <= len(message)


def test_no_text_begins_like_an_aggregated_record() -> None:
    """The magic bytes are no beginning of UTF-8, so that no line can be taken for a record."""
    for follower in (b"", b"\x80", b"\xbf\xbf", b"abc"):
        with pytest.raises(UnicodeDecodeError):
            (kpl.MAGIC + follower).decode()

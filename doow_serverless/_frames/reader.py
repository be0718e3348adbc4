"""Reads frames: a text is exactly a frame, whole or damaged, or it is none.

Nothing is searched: a frame within other text, or within an object of somebody else's, is that
text's or object's content, and reports no usage.
"""

from __future__ import annotations

import re
import zlib
from typing import Any

from .format import (
    BEGINNING,
    FORMAT,
    MARKER,
    SIGNED,
    digest_of,
    frame,
    level_and_message,
    signature,
    signed_text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_MOST_PARTS = 10_000
_LONGEST = 30_000
# Characters of a frame. Versions before format 2 wrote up to 28,000.
_BLANK = " \t\r\n"
# What platforms put around a line. Python's own strip() takes off more, which is somebody's text.
_EARLIER = "1"
_URL = "[A-Za-z0-9_.~%-]"
_TIMESTAMP = "[0-9TZ:.-]{0,40}"
_LEVEL = "[A-Z]{0,10}"
_MESSAGE = "[A-Za-z -]{0,100}"
_BATCH_ID = f"{_URL}{{0,400}}"
_SHAPES = {
    "timestamp": _TIMESTAMP,
    "level": _LEVEL,
    "message": _MESSAGE,
    "batch_id": _BATCH_ID,
    "events": "[0-9]{1,9}",
    "reason": "[A-Z_]{1,40}",
    "sdk_version": f"{_URL}{{0,64}}",
    "encoding": "gzip|identity",
    "sha256": "[A-Za-z0-9_-]{22}|[0-9a-f]{64}",
    "part": "[0-9]{1,5}",
    "parts": "[0-9]{1,5}",
    "data": "[A-Za-z0-9_-]*",
    "digest": "[A-Za-z0-9_-]{22}",
    "hmac": "[A-Za-z0-9_-]{43}",
    "crc32": "[0-9a-f]{8}",
}
# Each value has an alphabet without quotes, so that matching is linear, and all but the data, which
# the length of the whole bounds, are short: readers remember ids, and repeat them in reports.
_NUMBERS = {"events", "part", "parts"}
_FOR_PEOPLE = {"timestamp", "level", "message"}
_NEEDED = {FORMAT: {*SIGNED, "digest"}, _EARLIER: {*SIGNED, "crc32"}}
_OPTIONAL = {FORMAT: {*_FOR_PEOPLE, "hmac"}, _EARLIER: _FOR_PEOPLE}


def _pattern(version: str, names: Iterable[str]) -> re.Pattern[str]:
    """The shape of a frame whose fields are ``names``, in this order."""
    said = [f'"{MARKER}":{version}']
    for name in names:
        quote = "" if name in _NUMBERS else '"'
        said.append(f'"{name}":{quote}(?P<{name}>{_SHAPES[name]}){quote}')
    body = ",".join(said).replace(',"hmac"', '(?:,"hmac"') + (")?" if "hmac" in names else "")
    return re.compile(rf"\{{{body}\}}")


_ORDER = ("timestamp", "level", "message", *SIGNED[:-1])
_FRAMES = {
    FORMAT: _pattern(FORMAT, (*_ORDER, "data", "digest", "hmac")),
    _EARLIER: _pattern(_EARLIER, (*_ORDER, "crc32", "data")),
}
_HEAD = re.compile(
    rf'\{{"{MARKER}":(?P<version>\d{{1,9}})'
    rf'(?:,"timestamp":"(?P<timestamp>{_TIMESTAMP})"(?:,"level":"{_LEVEL}"'
    rf'(?:,"message":"{_MESSAGE}"(?:,"batch_id":"(?P<batch_id>{_BATCH_ID})")?)?)?)?'
)


class Part:
    """A whole frame: a batch, or a part of one.

    Attributes:
        batch_id: The id of the batch.
        events: How many events the whole batch has.
        reason: Why it was written: the name of an error kind, ``LOG``, or ``SPLIT``.
        sdk_version: The version that sealed it.
        timestamp: When it was written, ISO 8601 in UTC; "" if the log has lost it.
        gzipped: Whether the sealed bytes are gzip by themselves.
        number: Which part it is, from 1 up.
        parts: How many there are.
        sha256: The digest of the sealed bytes of the whole batch.
        data: This part of them: gzip in base64 (RFC 4648, the URL-safe alphabet, no padding).
    """

    __slots__ = (
        "_fields", "batch_id", "data", "events", "gzipped", "number", "parts", "reason",
        "sdk_version", "sha256", "timestamp",
    )  # fmt: skip

    def __init__(self, fields: dict[str, str]) -> None:
        """Take the ``fields`` of a frame; raises ValueError if they contradict one another."""
        self._fields = fields
        self.batch_id = _unquoted(fields["batch_id"])
        self.events = int(fields["events"])
        self.reason = fields["reason"]
        self.sdk_version = _unquoted(fields["sdk_version"])
        self.timestamp = fields.get("timestamp", "")
        self.gzipped = fields["encoding"] == "gzip"
        self.number = int(fields["part"])
        self.parts = int(fields["parts"])
        self.sha256 = fields["sha256"]
        self.data = fields["data"]
        if not 1 <= self.number <= self.parts <= _MOST_PARTS:
            raise ValueError(self.number)
        if "crc32" in fields:
            is_whole = fields["crc32"] == f"{zlib.crc32(self.data.encode()):08x}"
        else:
            is_whole = fields["digest"] == digest_of(signed_text(fields))
        if not is_whole:
            raise ValueError(self.batch_id)

    def __repr__(self) -> str:
        return f"Part({self.batch_id!r}, {self.number} of {self.parts})"

    def __len__(self) -> int:
        """The characters of its fields."""
        return sum(map(len, self._fields.values()))

    @property
    def is_signed(self) -> bool:
        """Whether it carries a signature, be it anybody's."""
        return "hmac" in self._fields

    def is_signed_by(self, keys: Iterable[bytes]) -> bool:
        """Return whether a holder of one of ``keys`` has written it."""
        if not self.is_signed:
            return False
        from hmac import compare_digest

        signed = signed_text(self._fields)
        return any(compare_digest(signature(signed, key), self._fields["hmac"]) for key in keys)

    def line(self, least_level: str = "") -> str:
        """Return the frame again, for a log that keeps lines of ``least_level``.

        It carries the signature that it came with.
        """
        people = level_and_message(self.reason, least_level)
        fields = {**self._fields, "timestamp": self.timestamp, **people}
        return frame(fields) if "digest" in fields else _earlier(fields)


class Damage:
    """A frame that cannot be read.

    Attributes:
        batch_id: The id of its batch, or None if that is lost too.
        timestamp: When it was written; "" if that is lost.
        why: What is wrong, in words that continue "the frame ".
    """

    __slots__ = ("batch_id", "timestamp", "why")

    def __init__(self, batch_id: str | None, timestamp: str, why: str) -> None:
        self.batch_id = batch_id
        self.timestamp = timestamp
        self.why = why

    def __repr__(self) -> str:
        return f"Damage({self.batch_id!r}, {self.why!r})"


def read_frame(text: str) -> Part | Damage | None:
    """Return the frame that ``text`` is, white space around it aside; None if it is none.

    A text that begins as a frame does and is not a whole one is a `Damage`.
    """
    text = text.strip(_BLANK)
    if not text.startswith(BEGINNING):
        return None
    if len(text) <= _LONGEST:
        for pattern in _FRAMES.values():
            found = pattern.fullmatch(text)
            if found is not None:
                fields = found.groupdict()
                return _part({name: fields[name] for name in fields if fields[name] is not None})
    return _damage(text)


def read_frames(text: str) -> list[Part | Damage]:
    """Return the frames that ``text`` consists of, a line each; none if it holds anything else."""
    found: list[Part | Damage] = []
    for line in text.strip(_BLANK).split("\n"):
        one = read_frame(line)
        if one is not None:
            found.append(one)
        elif line.strip(_BLANK):
            return []
    return found


def frame_of(fields: Mapping[str, Any]) -> Part | Damage | None:
    """Return the frame that an object is; None if it is none.

    Exports parse lines that are JSON. They may sort the fields, write numbers as text, and move
    those that the digest does not cover; an object with fields of somebody else's is no frame.
    """
    if MARKER not in fields:
        return None
    version = str(fields[MARKER])
    said = {name: str(value) for name, value in fields.items() if _is_scalar(value)}
    said.pop(MARKER, None)
    if version not in _NEEDED:
        return Damage(None, "", _LATER if version.isdecimal() else _ALTERED)
    names = set(fields) - {MARKER}
    if names - _NEEDED[version] - _OPTIONAL[version]:
        return None
    if not _NEEDED[version] <= said.keys() or not all(
        re.fullmatch(_SHAPES[name], said[name]) for name in names - _FOR_PEOPLE
    ):
        return Damage(_id_of(said), said.get("timestamp", ""), _ALTERED)
    return _part(said)


_LATER = "is of a later version of doow-serverless"
_ALTERED = "is cut off or altered"


def _part(fields: dict[str, str]) -> Part | Damage:
    try:
        return Part(fields)
    except ValueError:
        return Damage(_id_of(fields), fields.get("timestamp", ""), _ALTERED)


def _damage(text: str) -> Damage:
    head = _HEAD.match(text)
    if head is None:
        return Damage(None, "", _ALTERED)
    is_later = head["version"] not in _FRAMES
    batch_id = None if head["batch_id"] is None else _unquoted(head["batch_id"])
    return Damage(batch_id, head["timestamp"] or "", _LATER if is_later else _ALTERED)


def _id_of(fields: dict[str, str]) -> str | None:
    found = re.fullmatch(_BATCH_ID, fields.get("batch_id", "\n"))
    return None if found is None else _unquoted(found[0])


def _is_scalar(value: object) -> bool:
    return type(value) is int or isinstance(value, str)


def _earlier(fields: dict[str, str]) -> str:
    """A frame of format 1 again, which nobody writes any more."""
    body = ",".join(
        f'"{name}":{fields[name]}' if name in _NUMBERS else f'"{name}":"{fields[name]}"'
        for name in (*_ORDER, "crc32", "data")
    )
    return f"{BEGINNING}{_EARLIER},{body}}}"


def _unquoted(text: str) -> str:
    from urllib.parse import unquote

    try:
        return unquote(text, errors="surrogatepass")
    except UnicodeDecodeError:
        return text  # None of ours.

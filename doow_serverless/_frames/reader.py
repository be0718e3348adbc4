"""Reads dead letters back: any text to records, and records to whole batches.

The reader needs to know no envelope: it takes what stands between the braces around a marker, and
deletes from it what cannot be part of a value (see `format`).
"""

from __future__ import annotations

import json
import re
import zlib

from doow_serverless._sealing import Batch

from .format import FORMAT, GZIP, MARKER, checksum, record, record_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LONGEST_SPAN = 64 * 1024
# A record whose closing brace is not found within so many characters has lost it.
_MAX_BODY = 16 * 1024 * 1024
# What a body may unpack to: far above what the server takes, and far below what hurts.
_MOST_PARTS = 10_000
_MOST_LEVELS = 16
# No log escapes an escape more often, and undoing them without end keeps a hostile one busy.
_ESCAPE = re.compile(r"\\+u00([0-7][0-9A-Fa-f])")
_NOT_OURS = re.compile(r"\\+[nrt]|&quot;|&#34;|[\\\"'\s]+")
_MARK = re.compile(rf"{MARKER}:(\d+)(?:,|$)")
_BRACE = re.compile(r"[{}]")


class Part:
    """One record: a batch, or a part of one.

    Attributes:
        batch_id: The id of the batch.
        events: How many events the whole batch has.
        reason: Why it was not delivered, as the name of an error kind.
        sdk_version: The version that sealed it.
        timestamp: When it was given up, ISO 8601 in UTC; "" where the log has lost it.
        gzipped: Whether the sealed bytes are gzip by themselves.
        number: Which part it is, from 1 up.
        parts: How many there are.
        sha256: Of the sealed bytes of the whole batch, in hex digits.
        data: This part of them: gzip in base64 (RFC 4648, the URL-safe alphabet, no padding).
    """

    __slots__ = (
        "batch_id", "data", "events", "gzipped", "number", "parts", "reason", "sdk_version",
        "sha256", "timestamp",
    )  # fmt: skip

    def __init__(self, fields: dict[str, str]) -> None:
        """Read the ``fields`` of a record; KeyError or ValueError if they are no whole one."""
        self.batch_id = _unquoted(fields["batch_id"])
        self.events = int(fields["events"])
        self.reason = fields["reason"]
        self.sdk_version = _unquoted(fields["sdk_version"])
        self.timestamp = fields.get("timestamp", "")
        self.gzipped = {"gzip": True, "identity": False}[fields["encoding"]]
        self.number = int(fields["part"])
        self.parts = int(fields["parts"])
        self.sha256 = fields["sha256"]
        self.data = fields["data"]
        if not 1 <= self.number <= self.parts <= _MOST_PARTS:
            raise ValueError(self.number)
        if fields["crc32"] != checksum(self.data):
            raise ValueError(self.data)

    def line(self, least_level: str = "") -> str:
        """The record again, for a log that lets lines of ``least_level`` through."""
        head = record_head(
            self.batch_id,
            self.events,
            self.reason,
            self.timestamp,
            self.sdk_version,
            self.gzipped,
            self.sha256,
            least_level,
        )
        return record(head, self.number, self.parts, self.data)


class Damage:
    """A record that cannot be read.

    Attributes:
        batch_id: The id of its batch, or None where that is lost too.
        timestamp: When the batch was given up; "" where that is lost.
        why: What is wrong, in words that continue "the record ".
    """

    __slots__ = ("batch_id", "timestamp", "why")

    def __init__(self, batch_id: str | None, timestamp: str, why: str) -> None:
        self.batch_id = batch_id
        self.timestamp = timestamp
        self.why = why


class DeadLetter:
    """A batch that was read back whole, from so many ``parts``.

    Attributes:
        reason, timestamp: As of `Part`.
    """

    __slots__ = ("batch", "parts", "reason", "timestamp")

    def __init__(self, batch: Batch, reason: str, timestamp: str, parts: int) -> None:
        self.batch = batch
        self.reason = reason
        self.timestamp = timestamp
        self.parts = parts


class Finder:
    """Finds records in a text that comes block by block, cut wherever it may be."""

    def __init__(self) -> None:
        self._kept = ""

    def feed(self, block: str) -> Iterator[Part | Damage]:
        """What the text says up to the end of ``block``."""
        return self._find(self._kept + block, is_last=False)

    def close(self) -> Iterator[Part | Damage]:
        """What is left at the end of the text."""
        return self._find(self._kept, is_last=True)

    def _find(self, text: str, is_last: bool) -> Iterator[Part | Damage]:
        done = 0
        self._kept = ""
        while (at := text.find(MARKER, done)) >= 0:
            opening = max(text.rfind("{", done, at), text.rfind("}", done, at)) + 1
            start = max(opening, done, at - _LONGEST_SPAN)
            limit = at + _LONGEST_SPAN
            brace = _BRACE.search(text, at, limit)
            if brace is None and len(text) < limit and not is_last:
                self._kept = text[start:]
                return
            done = brace.start() if brace else min(len(text), limit)
            found = _read(text[start:done])
            if found is not None:
                yield found
        # The keys may have been sorted, so that most of a record stands before its marker.
        start = max(text.rfind("{", done), text.rfind("}", done), done, len(text) - _LONGEST_SPAN)
        self._kept = text[start:]


def _read(span: str) -> Part | Damage | None:
    """The record in what stands between two braces; None where the marker is only mentioned."""
    plain = _plain(span)
    mark = _MARK.search(plain)
    if mark is None:
        return None
    fields: dict[str, str] = {}
    for field in plain.split(","):
        name, _, value = field.partition(":")
        fields.setdefault(name, value)
    # What comes last may be cut off in its middle.
    batch_id = _unquoted(fields["batch_id"]) if {"batch_id", "events"} <= fields.keys() else None
    timestamp = fields.get("timestamp", "") if "level" in fields else ""
    if mark[1] != FORMAT:
        return Damage(batch_id, timestamp, "is of a later version of doow-serverless")
    try:
        return Part(fields)
    except (KeyError, ValueError):
        return Damage(batch_id, timestamp, "is cut off or altered")


def _plain(span: str) -> str:
    """``span`` without escapes, quotes and white space, at however many levels."""
    for _ in range(_MOST_LEVELS):
        before = span
        span = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), span)
        if span == before:
            break
    return _NOT_OURS.sub("", span)


# ── putting together ────────────────────────────────────────────────────────────────────────────


class Assembly:
    """Puts batches together from parts, in whatever order they come, each batch once.

    Attributes:
        repeated: How many records said again what was known.
    """

    def __init__(self) -> None:
        self.repeated = 0
        self._begun: dict[tuple[str, str, int], dict[int, Part]] = {}
        self._done: dict[str, tuple[str, frozenset[str]]] = {}
        self._damaged: dict[tuple[str | None, str], int] = {}

    def add(self, found: Part | Damage) -> DeadLetter | None:
        """Take in a record; the batch, if it is complete now for the first time."""
        if isinstance(found, Damage):
            self._note(found.batch_id, f"a record {found.why}")
            return None
        sha256, _ = self._done.get(found.batch_id, (None, None))
        key = (found.batch_id, found.sha256, found.parts)
        if found.sha256 == sha256 or found.number in self._begun.get(key, ()):
            self.repeated += 1
            return None
        parts = self._begun.setdefault(key, {})
        parts[found.number] = found
        if len(parts) < found.parts:
            return None
        del self._begun[key]
        return self._opened(parts)

    def begun(self) -> list[Part]:
        """The records of batches of which some are missing."""
        return [part for parts in self._begun.values() for part in parts.values()]

    def problems(self) -> list[tuple[str | None, str]]:
        """Batch ids, None where that is lost, and why no whole batch came of the records."""
        reasons: dict[str | None, list[str]] = {}
        for (batch_id, why), count in self._damaged.items():
            text = why if count == 1 else f"{why} ({count} times)"
            # A log may hold a damaged copy and a whole one.
            if batch_id not in self._done or why == _CONFLICT:
                reasons.setdefault(batch_id, []).append(text)
        for (batch_id, _, count), parts in self._begun.items():
            missing = [number for number in range(1, count + 1) if number not in parts]
            if batch_id not in self._done:
                reasons.setdefault(batch_id, []).append(_missing(missing, count))
        return [(batch_id, "; ".join(why)) for batch_id, why in reasons.items()]

    def _opened(self, parts: dict[int, Part]) -> DeadLetter | None:
        first = parts[1]
        batch = _batch_of(first, "".join(parts[number].data for number in sorted(parts)))
        if isinstance(batch, str):
            self._note(first.batch_id, batch)
            return None
        events = frozenset(batch.event_ids)
        _, known = self._done.setdefault(batch.id, (first.sha256, events))
        if known is events:
            return DeadLetter(batch, first.reason, first.timestamp, len(parts))
        # Work that is done again seals the same events under the same id, with another time.
        if known == events:
            self.repeated += 1
        else:
            self._note(batch.id, _CONFLICT)
        return None

    def _note(self, batch_id: str | None, why: str) -> None:
        self._damaged[batch_id, why] = self._damaged.get((batch_id, why), 0) + 1


_CONFLICT = "came again with other events, which were left out"


def _missing(numbers: list[int], count: int) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")
    return f"part{'s' * (len(numbers) > 1)} {shown} of {count} missing"


def _batch_of(part: Part, data: str) -> Batch | str:
    """The batch whose whole ``data`` this is, or what is wrong with it."""
    from base64 import urlsafe_b64decode
    from hashlib import sha256

    try:
        packed = urlsafe_b64decode(data + "=" * (-len(data) % 4))
        unpacker = zlib.decompressobj(GZIP)
        text = unpacker.decompress(packed, _MAX_BODY)
        body = packed if part.gzipped else text
        if not unpacker.eof or sha256(body).hexdigest() != part.sha256:
            return "the checksum does not fit"
        said = json.loads(text)
        event_ids = tuple(_ids_of(said["events"]))
        named = (said["batch_id"], said["sdk_version"], len(event_ids))
    except (ValueError, KeyError, TypeError, RecursionError, zlib.error):
        return "it holds no batch"
    if named != (part.batch_id, part.sdk_version, part.events):
        return "it holds another batch than it says"
    return Batch(part.batch_id, event_ids, body, part.gzipped, part.sdk_version)


def _ids_of(events: Iterable[dict[str, object]]) -> Iterator[str]:
    for event in events:
        if not isinstance(event["event_id"], str):
            raise TypeError
        yield event["event_id"]


def _unquoted(text: str) -> str:
    from urllib.parse import unquote

    try:
        return unquote(text, errors="surrogatepass")
    except UnicodeDecodeError:
        return text  # None of ours.

"""Puts batches together again from the frames that hold their parts."""

from __future__ import annotations

import json
import zlib

from doow_serverless._sealing import Batch

from .format import GZIP, digest_of
from .reader import Damage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .reader import Part

_MAX_BODY = 1024 * 1024
# What a body may unpack to: the server takes 450 KiB. The smallest JSON values take some thirty
# times their length in memory.


class DeadLetter:
    """A batch that was read back whole, from so many ``parts``.

    Attributes:
        reason, timestamp: See `Part`.
    """

    __slots__ = ("batch", "parts", "reason", "timestamp")

    def __init__(self, batch: Batch, reason: str, timestamp: str, parts: int) -> None:
        self.batch = batch
        self.reason = reason
        self.timestamp = timestamp
        self.parts = parts


class Assembly:
    """Puts batches together from parts, in whatever order they come, each batch once.

    Attributes:
        repeated: How many frames repeated what was known.
    """

    def __init__(self) -> None:
        self.repeated = 0
        self._begun: dict[tuple[str, str, int], dict[int, Part]] = {}
        self._done: dict[str, tuple[str, frozenset[str]]] = {}
        self._damaged: dict[tuple[str | None, str], int] = {}

    def add(self, found: Part | Damage) -> DeadLetter | None:
        """Take in a frame; return its batch if that is complete now for the first time."""
        if isinstance(found, Damage):
            self._note(found.batch_id, f"a frame {found.why}")
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
        """Return the frames of batches of which some frames are missing."""
        return [part for parts in self._begun.values() for part in parts.values()]

    def problems(self) -> list[tuple[str | None, str]]:
        """Return batch ids, None if that is lost, and why the frames made no whole batch."""
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

    try:
        packed = urlsafe_b64decode(data + "=" * (-len(data) % 4))
        unpacker = zlib.decompressobj(GZIP)
        text = unpacker.decompress(packed, _MAX_BODY)
        body = packed if part.gzipped else text
        if not unpacker.eof or _digest(body, part.sha256) != part.sha256:
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


def _digest(body: bytes, like: str) -> str:
    """The digest of a body, as the format that wrote ``like`` has it."""
    from hashlib import sha256

    return sha256(body).hexdigest() if len(like) == 64 else digest_of(body)

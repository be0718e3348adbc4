"""The frame: one line of the log that holds a sealed batch, or a part of one, and proves itself.

A frame is one line of JSON, no longer than a platform keeps. Every value is written in an alphabet
that no export escapes. Its digest covers all that counts, so a reader can tell a whole frame from a
damaged one; with a log key, an HMAC over the same tells it from one that somebody else has written.

With ``delivery="log"`` every batch becomes frames; a dead letter is a batch that was not delivered.
"""

from __future__ import annotations

import zlib

from doow_serverless._process.clock import iso_time
from doow_serverless._sealing import LINE_LIMIT, gzip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._sealing import Batch
    from doow_serverless.errors import ErrorKind

MARKER = "doow_dead_letter"
BEGINNING = f'{{"{MARKER}":'
"""Every frame begins so, and no other line of this library does."""
FORMAT = "2"
BY_LOG = "LOG"
"""The reason of a frame of a batch that is delivered by log."""
FOR_A_RELAY = "usage events for a relay"
"""In the message of such a frame, so that an alarm on dead letters can leave it out."""
SPLIT = "SPLIT"
"""The reason of a frame whose batch was split: from here on its two halves stand for it."""
GZIP = 16 + zlib.MAX_WBITS
SIGNED = ("batch_id", "events", "reason", "sdk_version", "encoding", "sha256", "part", "parts",
          "data")  # fmt: skip
"""The fields that digest and HMAC cover, in this order. The others are for people and for filters:
collectors move or rewrite them, and nothing that is counted depends on them."""

# Under Lambda's JSON format a line without level and timestamp counts as INFO, and is filtered.
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_USUAL = "INFO", f"{FOR_A_RELAY} to bring to Doow"
_TROUBLE = "ERROR", "usage events that Doow did not confirm - see doow-serverless replay"
_DIGEST = 16
"""Bytes of SHA-256 that are kept where nothing but damage is to be told."""


def load() -> None:
    """Import the modules that frames need: they are written on threads that import nothing."""
    import base64  # noqa: F401
    import hashlib  # noqa: F401
    import hmac  # noqa: F401
    import urllib.parse  # noqa: F401


def frames_of(
    batch: Batch,
    reason: ErrorKind | str,
    at_unix_s: float,
    *,
    limit: int = LINE_LIMIT,
    least_level: str = "",
    key: bytes | None = None,
) -> list[str]:
    """Return the frames of ``batch``, none longer than ``limit`` characters.

    Args:
        batch: A sealed batch.
        reason: Why it is written: an error kind, :data:`SPLIT`, or :data:`BY_LOG`.
        at_unix_s: When it is written, in Unix seconds.
        limit: At least 2,000.
        least_level: The least level of the lines that the platform keeps; "" if it keeps all.
        key: Signs the frames; None leaves them unsigned.
    """
    data = encoded(batch.body if batch.gzipped else gzip(batch.body))
    fields = {
        "timestamp": iso_time(int(at_unix_s * 1000)),
        **level_and_message(str(reason), least_level),
        "batch_id": quoted(batch.id),
        "events": str(len(batch)),
        "reason": str(reason),
        "sdk_version": quoted(batch.sdk_version),
        "encoding": "gzip" if batch.gzipped else "identity",
        "sha256": digest_of(batch.body),
    }
    head, signed_head = _head(fields), _signed_head(fields)
    room = max(limit - len(head) - (_TAIL if key is None else _SIGNED_TAIL), 1_000)
    parts = -(-len(data) // room)
    frames = []
    for part in range(1, parts + 1):
        piece = data[(part - 1) * room : part * room]
        signed = _signed(signed_head, part, parts, piece)
        digest = digest_of(signed)
        hmac = None if key is None else signature(signed, key)
        frames.append(head + _tail(part, parts, piece, digest, hmac))
    return frames


def level_and_message(reason: str, least_level: str) -> dict[str, str]:
    """Return the two fields of a frame that a platform filters by and people read."""
    level, message = _USUAL if reason == BY_LOG else _TROUBLE
    return {"level": max(level, least_level, key=_by_weight), "message": message}


def frame(fields: dict[str, str]) -> str:
    """Return the frame that has all of these ``fields``."""
    tail = _tail(
        fields["part"], fields["parts"], fields["data"], fields["digest"], fields.get("hmac")
    )
    return _head(fields) + tail


def _head(fields: dict[str, str]) -> str:
    """The beginning that all frames of a batch have in common."""
    return (
        f'{BEGINNING}{FORMAT},"timestamp":"{fields["timestamp"]}","level":"{fields["level"]}",'
        f'"message":"{fields["message"]}","batch_id":"{fields["batch_id"]}",'
        f'"events":{fields["events"]},"reason":"{fields["reason"]}",'
        f'"sdk_version":"{fields["sdk_version"]}","encoding":"{fields["encoding"]}",'
        f'"sha256":"{fields["sha256"]}"'
    )


def _tail(part: int | str, parts: int | str, data: str, digest: str, hmac: str | None) -> str:
    signed_by = "" if hmac is None else f',"hmac":"{hmac}"'
    return f',"part":{part},"parts":{parts},"data":"{data}","digest":"{digest}"{signed_by}}}'


_TAIL = len(_tail("10000", "10000", "", "d" * 22, None))
_SIGNED_TAIL = len(_tail("10000", "10000", "", "d" * 22, "h" * 43))


# ── proofs ──────────────────────────────────────────────────────────────────────────────────────


def signed_text(fields: dict[str, str]) -> bytes:
    """Return the bytes that digest and HMAC cover; no value holds a newline."""
    return _signed(_signed_head(fields), fields["part"], fields["parts"], fields["data"])


def _signed_head(fields: dict[str, str]) -> str:
    return "\n".join([MARKER, FORMAT, *(fields[name] for name in SIGNED[:-3])])


def _signed(head: str, part: int | str, parts: int | str, data: str) -> bytes:
    return f"{head}\n{part}\n{parts}\n{data}".encode("utf-8", "surrogatepass")


def digest_of(content: bytes) -> str:
    """Return 128 bits of the SHA-256 of ``content``, against damage."""
    from hashlib import sha256  # Dear at import: see load().

    return encoded(sha256(content).digest()[:_DIGEST])


def signature(signed: bytes, key: bytes) -> str:
    """Return the HMAC-SHA-256 of ``signed``, which only holders of ``key`` can make."""
    from hmac import digest

    return encoded(digest(key, signed, "sha256"))


def encoded(content: bytes) -> str:
    """Return ``content`` in base64: RFC 4648, the URL-safe alphabet, no padding."""
    from base64 import urlsafe_b64encode

    return urlsafe_b64encode(content).decode("ascii").rstrip("=")


def quoted(text: str) -> str:
    """Return ``text`` in the alphabet of frames: that of URLs, and percent signs."""
    if text.isascii() and text.replace("-", "").isalnum():
        return text
    from urllib.parse import quote  # Ids of our own need none.

    return quote(text, safe="", errors="surrogatepass")


def _by_weight(level: str) -> int:
    return _LEVELS.index(level) if level in _LEVELS else -1

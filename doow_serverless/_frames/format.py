"""The format of a sealed batch as lines of a log, none longer than a platform keeps.

A dead letter is such a batch, which was not delivered; with ``delivery="log"`` they all become one.

A record is one line of JSON. Whatever a log does to it on the way (escaping it as a JSON string any
number of times, doubling its quotes for CSV, printing it prettily, sorting its keys), the marker,
the braces around it and its values stay: they are of an alphabet that no such step touches.
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
BY_LOG = "LOG"
"""The reason of a record of a batch that was to go no other way."""
FOR_A_RELAY = "usage events for a relay"
"""What such a record says of itself, so that who is warned of dead letters can leave it out."""
FORMAT = "1"
SPLIT = "SPLIT"
"""The reason of a record that says of its batch: from here on its two halves stand for it."""
GZIP = 16 + zlib.MAX_WBITS

# Under Lambda's JSON format a line without level and timestamp counts as INFO, and is filtered.
# https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs-log-level.html
_LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_USUAL = "INFO", f"{FOR_A_RELAY} to bring to Doow"
_TROUBLE = "ERROR", "usage events that Doow did not confirm - see doow-serverless replay"


def load() -> None:
    """Import the modules that records need: they are written on threads that import nothing."""
    import base64  # noqa: F401
    import hashlib  # noqa: F401
    import hmac  # noqa: F401
    import urllib.parse  # noqa: F401


def records_of(
    batch: Batch,
    reason: ErrorKind | str,
    at_unix_s: float,
    *,
    limit: int = LINE_LIMIT,
    least_level: str = "",
    key: bytes | None = None,
) -> list[str]:
    """The records of ``batch``, none longer than ``limit`` characters.

    Args:
        batch: What was not delivered.
        reason: Why, or :data:`SPLIT`, or :data:`BY_LOG`.
        at_unix_s: When it was given up.
        limit: At least 2,000.
        least_level: Of the lines that the platform lets through; "" where it lets all.
        key: The log key, which signs each; None for no signature.
    """
    # Dear at import: see load().
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    packed = batch.body if batch.gzipped else gzip(batch.body)
    data = urlsafe_b64encode(packed).decode("ascii").rstrip("=")
    head = record_head(
        batch.id,
        len(batch),
        reason,
        iso_time(int(at_unix_s * 1000)),
        batch.sdk_version,
        batch.gzipped,
        sha256(batch.body).hexdigest(),
        least_level,
    )
    tail = len(record("", 10_000, 10_000, "")) + (0 if key is None else len(_signed("{}", key)))
    room = max(limit - len(head) - tail, 1_000)
    pieces = [data[at : at + room] for at in range(0, len(data), room)]
    lines = [record(head, number, len(pieces), piece) for number, piece in enumerate(pieces, 1)]
    return lines if key is None else [_signed(line, key) for line in lines]


def _signed(line: str, key: bytes) -> str:
    import hmac  # See load().

    return f'{line[:-1]},"hmac":"{hmac.new(key, line.encode(), "sha256").hexdigest()}"}}'


def record_head(
    batch_id: str,
    events: int,
    reason: str,
    timestamp: str,
    sdk_version: str,
    gzipped: bool,
    sha256: str,
    least_level: str = "",
) -> str:
    """What all the records of a batch begin with; the arguments are those of a `Part`."""
    level, message = _USUAL if reason == BY_LOG else _TROUBLE
    level = max(level, least_level, key=_by_weight)
    return (
        f'{{"{MARKER}":{FORMAT},"timestamp":"{timestamp}","level":"{level}",'
        f'"message":"{message}",'
        f'"batch_id":"{_quoted(batch_id)}","events":{events},"reason":"{reason}",'
        f'"sdk_version":"{_quoted(sdk_version)}",'
        f'"encoding":"{"gzip" if gzipped else "identity"}",'
        f'"sha256":"{sha256}"'
    )


def record(head: str, number: int, parts: int, data: str) -> str:
    """One record, of which ``head`` is the beginning."""
    return f'{head},"part":{number},"parts":{parts},"crc32":"{checksum(data)}","data":"{data}"}}'


def _by_weight(level: str) -> int:
    return _LEVELS.index(level) if level in _LEVELS else -1


def checksum(data: str) -> str:
    """CRC-32 of the data of a record, in 8 hex digits."""
    return f"{zlib.crc32(data.encode()):08x}"


def _quoted(text: str) -> str:
    """``text`` in the alphabet of records: that of URLs, and percent signs."""
    if text.isascii() and text.replace("-", "").isalnum():
        return text
    from urllib.parse import quote  # Ids of our own need none.

    return quote(text, safe="", errors="surrogatepass")

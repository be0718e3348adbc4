"""The format of a journal: events and sealed batches as lines of a file, and back.

A file is a first line and records, each led by its newline, so that a torn one swallows no other.
A record is a checksum of 8 hex digits, a letter and its payload:

    E  an event: its id, its time, and the rest as the wire has it
    R  an event in the place of the one with its id, which has become a part of it
    B  a sealed batch: [id, ids of its events, version, whether gzip], and its bytes in base64
    S  the id of a batch that is settled
    F  the ids of events that are not ours any more
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from zlib import crc32

from doow_serverless._recording.event import EventTemplate
from doow_serverless._sealing import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._recording.event import Event

FIRST_LINE = b"doow-journal 1"

_quoted = json.JSONEncoder().encode
_decode = json.JSONDecoder().raw_decode


def line_of(kind: bytes, payload: bytes) -> bytes:
    """A record: its newline, its checksum, its kind and its payload."""
    body = kind + payload
    return b"\n%08x%b" % (crc32(body), body)


def event_text(event: Event) -> bytes:
    """An event as it is recorded. Its time stays a number: to write it out takes longer."""
    event_id, moment, template, quantity, metadata = event
    when = f'"{moment}"' if isinstance(moment, str) else repr(moment)
    extra = "" if metadata is None else f',"metadata":{metadata}'
    text = f"{_quoted(event_id)},{when},{template.before}{quantity}{template.after}{extra}"
    return text.encode("ascii")


def event_of(line: bytes) -> Event:
    """The event of a line: one that the wire writes to the letter as it would have the original."""
    text = line[1:].decode("ascii")
    event_id, end = _decode(text)
    moment, end = _decode(text, end + 1)
    return event_id, moment, EventTemplate(text[end + 1 :], ""), "", None


def batch_text(batch: Batch) -> bytes:
    """A sealed batch as it is recorded."""
    head = [batch.id, batch.event_ids, batch.sdk_version, batch.gzipped]
    return _quoted(head).encode("ascii") + b2a_base64(batch.body, newline=False)


def batch_of(line: bytes) -> Batch:
    """The batch of a line."""
    text = line[1:].decode("ascii")
    (batch_id, event_ids, sdk_version, gzipped), end = _decode(text)
    return Batch(batch_id, tuple(event_ids), a2b_base64(text[end:]), gzipped, sdk_version)

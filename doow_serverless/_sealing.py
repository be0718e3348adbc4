"""Events become sealed batches, and a batch becomes two: pure functions of their arguments."""

from __future__ import annotations

import json
import zlib

from ._process.clock import iso_time
from ._recording.ids import derived_id, new_id
from ._version import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ._recording.event import Event

MAX_EVENTS = 500
"""Events that the server takes in one POST."""
MAX_BYTES = 450 * 1024
"""Bytes of JSON that the server takes in one POST, before compression."""
COMPRESS_FROM = 1_024
"""Bytes of JSON below which gzip costs more than it saves."""
LINE_LIMIT = 28_000
"""Characters of a line of the log that holds a batch. Platforms cut lines at 32,768 (Application
Insights) and later. The 2,000 that are left below 30,000 are for what a platform adds: under
Lambda's JSON format a backslash for each of about 60 quotes, and some 200 characters for the time,
the level and the request id."""
LINE_LIMIT_ON_VERCEL = 3_800
"""The same where a drain keeps 4 KB. https://vercel.com/docs/drains/reference/logs"""
LINE_HEAD = 700
"""Characters of it that are not the batch, at the most."""

_GZIP = 16 + zlib.MAX_WBITS
_ENVELOPE = 256
# Bytes kept free for the batch id, the version and the brackets.


class Batch:
    """Events sealed under one id. Whatever happens, every POST of it sends these bytes.

    Attributes:
        id: The batch id, by which the server recognises a batch that it has already recorded.
        event_ids: The ids of its events, in the order of the body.
        body: What is sent: JSON, gzip where it is large enough.
        gzipped: Whether ``body`` is gzip.
        sdk_version: The version that the body names, which the header must repeat.
    """

    __slots__ = ("body", "event_ids", "gzipped", "id", "sdk_version")

    def __init__(
        self, id: str, event_ids: tuple[str, ...], body: bytes, gzipped: bool, sdk_version: str
    ) -> None:
        self.id = id
        self.event_ids = event_ids
        self.body = body
        self.gzipped = gzipped
        self.sdk_version = sdk_version

    def __len__(self) -> int:
        return len(self.event_ids)

    def __repr__(self) -> str:
        return f"Batch({self.id!r}, {len(self)} events, {len(self.body)} bytes)"

    def json(self) -> str:
        """The JSON that was sealed."""
        return (zlib.decompress(self.body, _GZIP) if self.gzipped else self.body).decode()


def seal(
    events: Sequence[Event],
    *,
    max_bytes: int = MAX_BYTES,
    compress: bool = True,
    make_id: Callable[[Sequence[str]], str] | None = None,
) -> Iterator[Batch]:
    """Batches of ``events`` in their order, each within the server's bounds.

    Args:
        events: Checked events, in the order of recording.
        max_bytes: Bytes of JSON for one batch; a single event that is larger travels alone.
        compress: Whether bodies from :data:`COMPRESS_FROM` bytes on are gzipped.
        make_id: Gives a batch its id from the ids of its events. Default: a random one.
    """
    return seal_texts(*_write(events), max_bytes=max_bytes, compress=compress, make_id=make_id)


def seal_texts(
    ids: Sequence[str],
    texts: Sequence[str],
    *,
    max_bytes: int = MAX_BYTES,
    compress: bool = True,
    make_id: Callable[[Sequence[str]], str] | None = None,
) -> Iterator[Batch]:
    """The same of events that are JSON already, whose ids these are."""
    name = make_id or (lambda _: new_id())
    start, room = 0, max_bytes - _ENVELOPE
    for at, text in enumerate(texts):
        room -= len(text) + 1
        if at > start and (room < 0 or at - start == MAX_EVENTS):
            yield pack(name(ids[start:at]), ids[start:at], texts[start:at], __version__, compress)
            start, room = at, max_bytes - _ENVELOPE - len(text) - 1
    if texts:
        yield pack(name(ids[start:]), ids[start:], texts[start:], __version__, compress)


def split(batch: Batch) -> tuple[Batch, Batch]:
    """The two halves of a batch that the server found too large.

    Their ids derive from the parent's, so that a replay of the parent splits into the same halves
    and the server recognises each.
    """
    texts = _events_of(batch.json())
    middle = len(batch) // 2
    halves = []
    for index, part in enumerate((slice(None, middle), slice(middle, None))):
        half_id = derived_id(batch.id, str(index))
        ids = batch.event_ids[part]
        halves.append(pack(half_id, ids, texts[part], batch.sdk_version, batch.gzipped))
    return halves[0], halves[1]


def _write(events: Iterable[Event]) -> tuple[list[str], list[str]]:
    """The ids of events, and their JSON."""
    ids = []
    texts = []
    millisecond, now = -1, ""
    quoted = json.encoder.encode_basestring_ascii
    for event_id, time, template, quantity, metadata in events:
        if isinstance(time, str):
            moment = time
        else:
            if millisecond != (this := int(time * 1000)):
                millisecond, now = this, iso_time(this)
            moment = now
        extra = "" if metadata is None else f',"metadata":{metadata}'
        texts.append(
            f'{{"event_id":{quoted(event_id)},"occurred_at":"{moment}",'
            f"{template.before}{quantity}{template.after}{extra}}}"
        )
        ids.append(event_id)
    return ids, texts


def pack(
    batch_id: str, ids: Sequence[str], texts: Sequence[str], sdk_version: str, compress: bool
) -> Batch:
    head = f'"batch_id":{json.dumps(batch_id)},"sdk_version":{json.dumps(sdk_version)}'
    body = f'{{{head},"events":[{",".join(texts)}]}}'.encode("ascii")
    gzipped = compress and len(body) >= COMPRESS_FROM
    if gzipped:
        body = gzip(body)
    return Batch(batch_id, tuple(ids), body, gzipped, sdk_version)


def gzip(body: bytes) -> bytes:
    """``body`` as gzip. Equal bytes in make equal bytes out, since the header holds no time."""
    # Level 1 takes half the time of the default for a tenth more bytes.
    packer = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    return packer.compress(body) + packer.flush()


def _events_of(text: str) -> list[str]:
    """The JSON texts of a batch's events, to the letter."""
    decoder = json.JSONDecoder()
    at = text.index('"events":[') + len('"events":[')
    texts = []
    while text[at] != "]":
        _, end = decoder.raw_decode(text, at)
        texts.append(text[at:end])
        at = end + (text[end] == ",")
    return texts

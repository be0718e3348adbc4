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
LINE_LIMIT = 4_094
"""Characters of a line of the log that holds a batch or a part of one. With the newlines before and
after it that is 4,096, the most that a pipe keeps whole beside other writers (``PIPE_BUF`` on
Linux). Every platform keeps lines several times as long, whatever it adds to them."""
LINE_LIMIT_ON_VERCEL = 3_800
"""The same on Vercel, where a drain keeps 4 KB. https://vercel.com/docs/drains/reference/logs"""
LINE_HEAD = 560
"""Characters of a line that are not the batch, at most. A line in the ids of this library, with a
signature, needs about 520; the rest is room for longer numbers."""
MAX_BYTES_IN_LOG = 20 * 1024
"""Bytes of JSON in a batch for the log. A batch is to fit into one line, and typical events
compress to a fifth or a tenth: more would seldom fit."""

_GZIP = 16 + zlib.MAX_WBITS
_ENVELOPE = 256
# Bytes kept free for the batch id, the version and the brackets.
_ANY_ID = "018f3c6e-9d27-4b5a-8e41-70c2d6b9f3a5"
# Stands for the id of a batch whose size is tried: an id is given once the cuts are final.
_ID_VARIES = 32
# Bytes by which gzip may be larger with another id.


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
    max_packed: int | None = None,
    compress: bool = True,
    make_id: Callable[[Sequence[str]], str] | None = None,
) -> Iterator[Batch]:
    """Batches of ``events`` in their order, each within the server's bounds.

    Args:
        events: Checked events, in the order of recording.
        max_bytes: Bytes of JSON for one batch; a single event that is larger travels alone.
        max_packed: Bytes of gzip for one batch, with the same exception; None: no bound. With it
            the cuts depend on the times of events: not for work whose retry must be cut alike.
        compress: Whether bodies from :data:`COMPRESS_FROM` bytes on are gzipped.
        make_id: Gives a batch its id from the ids of its events. Default: a random one.
    """
    return seal_texts(
        *_write(events),
        max_bytes=max_bytes,
        max_packed=max_packed,
        compress=compress,
        make_id=make_id,
    )


def seal_texts(
    ids: Sequence[str],
    texts: Sequence[str],
    *,
    max_bytes: int = MAX_BYTES,
    max_packed: int | None = None,
    compress: bool = True,
    make_id: Callable[[Sequence[str]], str] | None = None,
) -> Iterator[Batch]:
    """The same for events that are JSON already, with the ids ``ids``."""
    name = make_id or (lambda _: new_id())
    for start, end in _pieces(texts, max_bytes):
        cuts = [(start, end)] if max_packed is None else _cut(texts, start, end, max_packed)
        for first, last in cuts:
            piece = ids[first:last]
            yield pack(name(piece), piece, texts[first:last], __version__, compress)


def _pieces(texts: Sequence[str], max_bytes: int) -> Iterator[tuple[int, int]]:
    """From where to where the batches reach that the JSON of ``texts`` fills."""
    start, room = 0, max_bytes - _ENVELOPE
    for at, text in enumerate(texts):
        room -= len(text) + 1
        if at > start and (room < 0 or at - start == MAX_EVENTS):
            yield start, at
            start, room = at, max_bytes - _ENVELOPE - len(text) - 1
    if texts:
        yield start, len(texts)


def _cut(
    texts: Sequence[str], start: int, end: int, max_packed: int, estimate: int = 0
) -> Iterator[tuple[int, int]]:
    """Cut a piece of ``texts`` into halves until each fits into ``max_packed``, or is one event.

    The cuts depend on the texts alone, their times included. The ``estimate`` is half the size of
    the piece that was cut; a half that seems too large is not worth packing.
    """
    if end - start > 1:
        piece = texts[start:end]
        size = estimate if estimate > max_packed else _packed_size(piece, max_packed)
        if size > max_packed:
            middle = (start + end) // 2
            yield from _cut(texts, start, middle, max_packed, size // 2)
            yield from _cut(texts, middle, end, max_packed, size // 2)
            return
    yield start, end


def _packed_size(texts: Sequence[str], max_packed: int) -> int:
    """Bytes of gzip that ``texts`` need as a batch, or more if that is within ``max_packed``."""
    size = sum(map(len, texts)) + len(texts) + _ENVELOPE
    return (
        size if size <= max_packed else len(gzip(_body(_ANY_ID, texts, __version__))) + _ID_VARIES
    )


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
    body = _body(batch_id, texts, sdk_version)
    gzipped = compress and len(body) >= COMPRESS_FROM
    if gzipped:
        body = gzip(body)
    return Batch(batch_id, tuple(ids), body, gzipped, sdk_version)


def _body(batch_id: str, texts: Sequence[str], sdk_version: str) -> bytes:
    head = f'"batch_id":{json.dumps(batch_id)},"sdk_version":{json.dumps(sdk_version)}'
    return f'{{{head},"events":[{",".join(texts)}]}}'.encode("ascii")


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

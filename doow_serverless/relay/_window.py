"""What a tumbling window has gathered, in a state that Lambda hands from invocation to invocation.

A window's events are sealed anew, under ids that derive from the shard and the window: work that
Lambda has done again, with the same state and the same records, seals the same batches.
https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from hashlib import sha256

from doow_serverless._frames.format import GZIP
from doow_serverless._keeping.refolding import Folded, read, written
from doow_serverless._recording.ids import derived_id
from doow_serverless._sealing import gzip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from typing import Any

    from doow_serverless._frames.reader import Part
    from doow_serverless._sealing import Batch

MAX_EVENTS_LENGTH = 350_000
"""Characters of a state that its events may take: Lambda takes a state of 1 MB at the most."""
MAX_PARTS_LENGTH = 200_000
"""The same, of records whose batches are not whole yet."""
MAX_KNOWN = 30_000
"""Batches of which a window remembers that it has had them: the latest. 11 characters for each."""
_DIGEST = 8


def digest(batch_id: str) -> bytes:
    """What is remembered of the id of a batch."""
    return sha256(batch_id.encode(errors="surrogatepass")).digest()[:_DIGEST]


class Window:
    """The events of a window, or of the part of it that its state stands for.

    Args:
        state: What :meth:`state` returned to the invocation before; empty at the beginning.
        name: What is never the same for two windows.
        first: The place in the stream where this invocation begins. Where the window was terminated
            early it goes on with an empty state, and needs ids of its own.
        fold: As of `Folded`.

    Attributes:
        known: Digests of the batches that it has had, in order.
        parts: Records of batches of which some are missing, as lines.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        name: str,
        first: str,
        fold: bool | Collection[str],
    ) -> None:
        self._first = state.get("first") or first
        self._sealed = int(state.get("sealed", 0))
        self._base = derived_id("relay", name, self._first)
        self._fold = fold
        self.parts: list[str] = list(state.get("parts", ()))
        known = b64decode(state.get("known", ""))
        self.known = {known[at : at + _DIGEST]: True for at in range(0, len(known), _DIGEST)}
        self._events = Folded(fold)
        packed = state.get("events")
        if packed:
            for event in read(zlib.decompress(b64decode(packed), GZIP).decode()):
                self._events.add(event)

    def add(self, batch: Batch) -> bool:
        """Take in the events of ``batch``, if it is new; False where they cannot be read."""
        known = digest(batch.id)
        if known in self.known:
            return True
        if not self._events.take(batch):
            return False
        self.known[known] = True
        return True

    def keep(self, parts: Iterable[Part]) -> list[Part]:
        """Keep records of batches of which some are missing; those that there is no room for."""
        room, self.parts, rest = MAX_PARTS_LENGTH, [], []
        for part in parts:
            line = part.line()
            room -= len(line)
            if room < 0:
                rest.append(part)
            else:
                self.parts.append(line)
        return rest

    @property
    def is_full(self) -> bool:
        """Whether its events must leave, since the state can hold no more."""
        return len(self._packed()) > MAX_EVENTS_LENGTH

    def seal(self) -> list[Batch]:
        """The events in batches; the window goes on without them."""
        batches = list(self._events.sealed(f"{self._base} {self._sealed}"))
        self._sealed += 1
        self._events = Folded(self._fold)
        return batches

    def state(self) -> dict[str, Any]:
        """What the next invocation needs, as JSON can say it."""
        known = b"".join(list(self.known)[-MAX_KNOWN:])
        return {
            "first": self._first,
            "sealed": self._sealed,
            "known": b64encode(known).decode(),
            "events": self._packed(),
            "parts": self.parts,
        }

    def _packed(self) -> str:
        return b64encode(gzip(written(self._events.events).encode())).decode()

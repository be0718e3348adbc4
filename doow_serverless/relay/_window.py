"""What a tumbling window has gathered, in a state that Lambda hands from invocation to invocation.

A window's events are sealed anew. The id of such a batch derives from the batches that its events
came from, and where it is cut depends on them alone: however Lambda cuts the same records into
invocations when it retries them, the same batches are sealed.
https://docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html
"""

from __future__ import annotations

import zlib
from base64 import b64decode, b64encode
from hashlib import sha256

from doow_serverless._frames.assembly import Assembly
from doow_serverless._frames.format import BY_LOG, GZIP
from doow_serverless._frames.reader import Part, read_frame
from doow_serverless._keeping.refolding import Folded, read, written
from doow_serverless._recording.ids import derived_id, is_random
from doow_serverless._sealing import gzip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

    from doow_serverless._frames.assembly import DeadLetter
    from doow_serverless._frames.reader import Damage
    from doow_serverless._sealing import Batch

MAX_EVENTS_LENGTH = 350_000
"""Characters of a state that its events may take: Lambda takes a state of 1 MB at the most."""
MAX_PARTS_LENGTH = 200_000
"""The same, of frames whose batches are not whole yet."""
MAX_KNOWN = 30_000
"""Batches of which a window remembers that it has had them: the latest. 11 characters for each."""
LEAST_ROOM = 8_000
"""Characters of events for which there must be room; otherwise the window is full."""
_DIGEST = 8


def digest(batch_id: str) -> bytes:
    """What is remembered of the id of a batch."""
    return sha256(batch_id.encode(errors="surrogatepass")).digest()[:_DIGEST]


class Window:
    """The events of a window, or of the part of it that its state stands for.

    Args:
        state: The return value of :meth:`state` in the invocation before; empty at the beginning.
        name: Never the same for two windows.
        first: The place in the stream where this invocation begins. A window that was terminated
            early goes on with an empty state.
        fold: See `Folded`.

    Attributes:
        assembly: Joins frames to batches.
        known: Digests of the batches that it has had, in order.
        name: Never the same for two windows, or parts of a window that share no state.
    """

    def __init__(
        self,
        state: Mapping[str, Any],
        name: str,
        first: str,
        fold: bool | Collection[str],
    ) -> None:
        self._first = state.get("first") or first
        self.name = f"{name} {self._first}"
        self._fold = fold
        known = b64decode(state.get("known", ""))
        self.known = {known[at : at + _DIGEST]: True for at in range(0, len(known), _DIGEST)}
        # A state of an earlier version has no chain.
        self._chain: str = state.get("chain", sha256(known).hexdigest() if known else "")
        self._room: int = state.get("room", 0 if known else MAX_EVENTS_LENGTH * 3 // 4)
        packed = state.get("events")
        text = zlib.decompress(b64decode(packed), GZIP).decode() if packed else "[]"
        self._events = Folded(fold, read(text))
        self.assembly = Assembly()
        for line in state.get("parts", ()):
            part = read_frame(line)
            if isinstance(part, Part):
                self.assembly.add(part)

    # ── taking in ──────────────────────────────────────────────────────────────────────────────

    def take(self, frame: Part | Damage, is_known: Callable[[str], bool]) -> list[Batch]:
        """Take in a frame; return the batches that must leave now.

        Dead letters, idempotent work and batches in several parts keep their own id: they may
        arrive again later, and only the id lets Doow deduplicate them. Of the others the window
        gathers the events, until it is full.

        Args:
            frame: The next of the stream.
            is_known: Tells whether a batch was delivered outside of this window.
        """
        letter = self.assembly.add(frame)
        if letter is None or digest(letter.batch.id) in self.known:
            return []
        if not _may_be_gathered(letter):
            self.known[digest(letter.batch.id)] = True
            return [letter.batch]
        if not self.add(letter.batch, is_left_out=is_known(letter.batch.id)):
            return [letter.batch]
        return self.seal() if self.is_full else []

    def add(self, batch: Batch, *, is_left_out: bool = False) -> bool:
        """Take in the events of ``batch``, if it is new; False if they cannot be read.

        A batch that is left out, since this process has delivered it in another window, counts for
        the ids all the same: another process does not know it, and must seal the rest under the
        same ids when it retries this work. It counts for the cuts as well, but only by its length:
        a window that is full before it closes may be cut elsewhere by that process.
        """
        known = digest(batch.id)
        if known in self.known:
            return True
        characters = len(batch.json()) if is_left_out else self._events.take(batch)
        if not characters:
            return False
        self.known[known] = True
        self._chain = sha256(f"{self._chain} {known.hex()}".encode()).hexdigest()
        self._room -= characters
        return True

    @property
    def is_full(self) -> bool:
        """Whether its events must leave, since the state may not be able to hold more.

        That depends on the batches that were gathered, and on nothing else. Packing takes time, so
        it is done only after as many characters as would have fitted if none could be compressed.
        """
        if self._room > 0:
            return False
        self._room = (MAX_EVENTS_LENGTH - len(self._packed())) * 3 // 4
        return self._room < LEAST_ROOM

    # ── leaving ────────────────────────────────────────────────────────────────────────────────

    def seal(self) -> list[Batch]:
        """Return the events in batches; the window goes on without them."""
        batches = list(self._events.sealed(derived_id("relay", self._chain)))
        self._chain = ""
        self._room = MAX_EVENTS_LENGTH * 3 // 4
        self._events = Folded(self._fold)
        return batches

    def leftover_parts(self) -> list[Part]:
        """Return the frames of batches that are not whole and for which the state has no room."""
        return self._parts()[1]

    def _parts(self) -> tuple[list[str], list[Part]]:
        room, kept, rest = MAX_PARTS_LENGTH, [], []
        for part in self.assembly.begun():
            line = part.line()
            room -= len(line)
            if room < 0:
                rest.append(part)
            else:
                kept.append(line)
        return kept, rest

    def state(self) -> dict[str, Any]:
        """Return the state for the next invocation, as JSON can say it."""
        known = b"".join(list(self.known)[-MAX_KNOWN:])
        return {
            "first": self._first,
            "chain": self._chain,
            "room": self._room,
            "known": b64encode(known).decode(),
            "events": self._packed(),
            "parts": self._parts()[0],
        }

    def _packed(self) -> str:
        return b64encode(gzip(written(self._events.events).encode())).decode()


def _may_be_gathered(letter: DeadLetter) -> bool:
    is_usual = letter.reason == BY_LOG and letter.parts == 1
    return is_usual and is_random(letter.batch.id)

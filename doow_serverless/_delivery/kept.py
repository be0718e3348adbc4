"""The backlog: batches that nobody waits for, bounded, each kept until the server has it."""

from __future__ import annotations

from collections import OrderedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .flight import Entry


class Kept:
    """Entries by batch id, what failed least first; at most so many events and sealed bytes.

    Attributes:
        events: Events in it.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._bytes = 0
        self.events = 0

    def __repr__(self) -> str:
        return f"Kept({len(self)} batches, {self.events} events, {self._bytes} bytes)"

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(list(self._entries.values()))

    def __contains__(self, entry: Entry) -> bool:
        return self._entries.get(entry.batch.id) is entry

    def put(self, entry: Entry, *, first: bool = False) -> None:
        """Keep an entry, behind all others or before them."""
        self._entries[entry.batch.id] = entry
        if first:
            self._entries.move_to_end(entry.batch.id, last=False)
        self.events += len(entry.batch)
        self._bytes += len(entry.batch.body)

    def put_last(self, entry: Entry) -> None:
        """Move an entry behind all others."""
        self._entries.move_to_end(entry.batch.id)

    def take(self, entry: Entry) -> bool:
        """Keep an entry no longer; whether it was kept."""
        if entry not in self:
            return False
        del self._entries[entry.batch.id]
        self.events -= len(entry.batch)
        self._bytes -= len(entry.batch.body)
        return True

    def take_excess(self) -> list[Entry]:
        """Take out the oldest until the rest is within the bounds."""
        taken = []
        for entry in self:
            if self.events <= self._max_events and self._bytes <= self._max_bytes:
                break
            self.take(entry)
            taken.append(entry)
        return taken

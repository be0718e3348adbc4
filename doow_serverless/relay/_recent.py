"""What a process remembers of the past, as far as there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable


class Recent:
    """Members with a note each; beyond so many, the oldest are forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._members: OrderedDict[Hashable, str] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Recent({len(self._members)} of {self._most})"

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def note(self, member: Hashable) -> str | None:
        """Return the note of ``member``; None if it is not known."""
        return self._members.get(member)

    def add(self, member: Hashable, note: str = "") -> None:
        """Take in ``member``, or keep it for longer."""
        with self._lock:
            self._members[member] = note
            self._members.move_to_end(member)
            while len(self._members) > self._most:
                self._members.popitem(last=False)

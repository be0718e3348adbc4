"""What a process remembers of the past, as far as there is room."""

from __future__ import annotations

import threading
from collections import OrderedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable


class Recent:
    """A set that forgets what it has had longest, beyond so many members."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._members: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Recent({len(self._members)} of {self._most})"

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def add(self, member: Hashable) -> None:
        """Take in ``member``, or keep it for longer."""
        with self._lock:
            self._members[member] = None
            self._members.move_to_end(member)
            while len(self._members) > self._most:
                self._members.popitem(last=False)

"""The time of the simulation, which leaves out what nothing happens in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EPOCH = 1_767_225_600.0
"""Unix seconds at which the simulation begins: a full minute, as the account counts them."""


class Clock:
    """Seconds since the simulation began; they run as the machine's do, and jump ahead.

    So work takes as long as it takes, a real POST above all, and the pauses between take none.

    Args:
        machine: Monotonic seconds.
    """

    def __init__(self, machine: Callable[[], float] = time.monotonic) -> None:
        self._machine = machine
        self._ahead_s = -machine()

    def __call__(self) -> float:
        return self._machine() + self._ahead_s

    def unix(self) -> float:
        """The same in Unix seconds."""
        return EPOCH + self()

    def jump_to(self, at: float) -> None:
        """Leave out what is left until then; nothing, where it is that late already."""
        self._ahead_s += max(0.0, at - self())

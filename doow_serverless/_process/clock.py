"""A stretch of wall time that ends, on the monotonic clock."""

from __future__ import annotations

from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Clock = Callable[[], float]


class Budget:
    """``limit_s`` seconds from now on ``clock`` (monotonic seconds)."""

    __slots__ = ("_clock", "_ends_at", "limit_s")

    def __init__(self, limit_s: float, clock: Clock = monotonic) -> None:
        self.limit_s = max(0.0, limit_s)
        self._clock = clock
        self._ends_at = clock() + self.limit_s

    def remaining(self) -> float:
        """Seconds left; 0.0 when it is used up."""
        return max(0.0, self._ends_at - self._clock())

    def spent(self) -> float:
        """Seconds since it began; more than ``limit_s`` when it was overrun."""
        return self._clock() - self._ends_at + self.limit_s

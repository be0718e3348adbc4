"""Time: a budget of seconds on the monotonic clock, and moments as the wire writes them."""

from __future__ import annotations

from datetime import datetime, timezone
from time import monotonic

from doow_serverless._redaction import show

from .log import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Clock: TypeAlias = Callable[[], float]


WATCH_S = 0.5
"""Seconds after which whoever waits, or a timer, shows that the process still runs."""
FROZEN_S = 1.0
"""Seconds without such a sign that count as frozen."""


def contained(clock: Clock) -> Clock:
    """Return ``clock``; one of the user's that raises is replaced by the system's, reported once.

    Time goes on from its last answer, so that no budget begins anew.
    """
    return clock if clock is monotonic else _Contained(clock)


class _Contained:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ahead_s: float | None = None
        self._last = self._last_at = 0.0

    def __call__(self) -> float:
        if self._ahead_s is None:
            try:
                self._last, self._last_at = self._clock() + 0.0, monotonic()
                return self._last
            except BaseException as fault:
                from .signals import is_from_signal  # Not needed while all is well.

                if is_from_signal(fault):
                    raise
                self._ahead_s = self._last - self._last_at
                warn(f"the clock raised {show(fault, 200)}; the system's is used from now on")
        return monotonic() + self._ahead_s


class Budget:
    """``limit_s`` seconds of wall time, from now on.

    Args:
        limit_s: Seconds; a negative number counts as none.
        clock: Monotonic seconds.

    Attributes:
        limit_s: How many seconds it had at first.
        began_at: When it began, on that clock.
        ends_at: When it is used up, on that clock.
    """

    __slots__ = ("_clock", "began_at", "ends_at", "limit_s")

    def __init__(self, limit_s: float, clock: Clock = monotonic) -> None:
        self.limit_s = max(0.0, limit_s)
        self._clock = clock
        self.began_at = clock()
        self.ends_at = self.began_at + self.limit_s

    def __repr__(self) -> str:
        return f"Budget({self.remaining():.3f} of {self.limit_s:.3f} s left)"

    def remaining(self) -> float:
        """Seconds left; 0.0 when it is used up."""
        return max(0.0, self.ends_at - self._clock())

    def extend(self, seconds: float) -> None:
        """So many seconds more; fewer where the number is negative."""
        self.ends_at += seconds

    def spent(self) -> float:
        """Seconds since it began; more than ``limit_s`` when it was overrun."""
        return self._clock() - self.began_at


def iso_time(unix_ms: int) -> str:
    """Unix milliseconds as ISO 8601 in UTC."""
    second, millisecond = divmod(unix_ms, 1000)
    return f"{datetime.fromtimestamp(second, timezone.utc):%Y-%m-%dT%H:%M:%S}.{millisecond:03d}Z"

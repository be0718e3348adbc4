"""A circuit breaker: whether sending is worth a wait just now."""

from __future__ import annotations

import os
import threading
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._process.clock import Clock
    from doow_serverless.errors import ErrorKind

FIRST_HOLD_S = 1.0
LONGEST_HOLD_S = 60.0
KEY_REFUSED_HOLD_S = 900.0
"""Seconds after which a refused key is tried again, should it have been restored."""


def uniform() -> float:
    """A random number from 0.0 up to 1.0; the module random would cost its import."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class CircuitBreaker:
    """Closed while the server answers; a failure opens it, and only a success closes it again.

    While it is open no flush waits. Once the hold-off is over it is half open: one probe at a time
    may try. The hold-off is a second at first and doubles with each failed probe, up to a minute,
    less up to a half at random, so that a fleet of functions does not come back all at once.

    Every method may be called from any thread.

    Args:
        clock: Monotonic seconds.
        uniform: A random number from 0.0 up to 1.0.

    Attributes:
        reason: What opened it, as an error kind; None while it is closed.
        message: What opened it, in words.
    """

    def __init__(self, clock: Clock = monotonic, uniform: Callable[[], float] = uniform) -> None:
        self._clock = clock
        self._uniform = uniform
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self._probing = False
        self.reason: ErrorKind | None = None
        self.message = ""

    def __repr__(self) -> str:
        if self.reason is None:
            return "CircuitBreaker(closed)"
        left_s = self._until - self._clock()
        state = f"open for {left_s:.1f} s more" if left_s > 0 else "half open"
        return f"CircuitBreaker({state}, {self.reason}: {self.message!r})"

    @property
    def is_open(self) -> bool:
        """Whether flushes should not wait."""
        return self.reason is not None

    def close(self) -> None:
        """Something got through."""
        with self._lock:
            self._failures = 0
            self._until = 0.0
            self.reason = None

    def failed(self, reason: ErrorKind, message: str) -> None:
        """Nothing got through: hold off, for longer each time."""
        with self._lock:
            # Flushes that fail together are one failure: the first has set the hold-off.
            if self.reason is None or self._until <= self._clock():
                hold_s = min(FIRST_HOLD_S * 2.0**self._failures, LONGEST_HOLD_S)
                self._failures = min(self._failures + 1, 16)
                self._hold(reason, message, hold_s * (0.5 + self._uniform() / 2))

    def open(self, reason: ErrorKind, message: str, seconds: float | None) -> None:
        """Hold off for the ``seconds`` that were asked for; without any, as after any failure."""
        if not seconds:
            self.failed(reason, message)
            return
        with self._lock:
            self._hold(reason, message, seconds)

    def _hold(self, reason: ErrorKind, message: str, seconds: float) -> None:
        self.message = message
        self.reason = reason
        self._until = max(self._until, self._clock() + seconds)

    def begin_probe(self) -> bool:
        """Whether the caller may try to send in the background; if so it must call `end_probe`."""
        with self._lock:
            if self._probing or (self.reason is not None and self._until > self._clock()):
                return False
            self._probing = True
            return True

    def end_probe(self) -> None:
        """The probe is over, however it went."""
        with self._lock:
            self._probing = False

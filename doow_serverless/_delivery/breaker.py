"""A circuit breaker: whether sending is worth a try just now, and how long to wait for that try.

It holds no lock and no clock: whoever owns it says what time it is.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless.errors import ErrorKind

FIRST_HOLD_S = 1.0
LONGEST_HOLD_S = 60.0
KEY_REFUSED_HOLD_S = 900.0
"""Seconds after which a refused key is tried again, should it have been restored. A fetched key is
tried sooner at first; see `Credentials.refused_hold_s`."""
SPREAD = 0.1
"""Part of a hold-off that was asked for by which it may last longer."""
LEAST_SPREAD_S = 1.0
"""Seconds by which it may last longer, however short it is."""
PROBE_WAIT_S = 0.3
"""Seconds for which a flush waits for a probe: a TLS handshake and a POST to another continent."""
ALLOWANCE_REGAINED_S = 7_200.0
"""Seconds in which the time that flushes may wait for probes is regained, a budget of it."""


def uniform() -> float:
    """A random number from 0.0 up to 1.0; the module random would cost its import."""
    return int.from_bytes(os.urandom(4), "big") / 2**32


class CircuitBreaker:
    """Closed while the server answers; a failure opens it, and only a success closes it again.

    While it is open nothing is sent and no flush waits. Once the hold-off is over it is due (half
    open): one probe at a time may try, for which the next flush waits, since a function that is
    frozen between its invocations has no other time. All these waits together take no more than a
    budget, and another one in every two hours that an outage lasts. The hold-off is a second at
    first and doubles with each failed probe, up to a minute, less up to a half at random, so that a
    fleet of functions does not come back all at once. One that the server asks for is never cut
    short: to it up to a tenth is added at random, and up to a second where that is more, since the
    server tells the whole fleet the same moment.

    Args:
        uniform: A random number from 0.0 up to 1.0.

    Attributes:
        is_open: Whether nothing may be sent but a probe.
        reason: What opened it, as an error kind; None while it is closed.
        message: What opened it, in words.
        until: When it is due, in seconds on the owner's clock.
    """

    def __init__(self, uniform: Callable[[], float] = uniform) -> None:
        self._uniform = uniform
        self._failures = 0
        self._waited_s = 0.0
        self._regained_at = 0.0
        self._asked_until = 0.0
        self.until = 0.0
        self.is_open = False
        self.reason: ErrorKind | None = None
        self.message = ""

    def __repr__(self) -> str:
        if self.reason is None:
            return "CircuitBreaker(closed)"
        return f"CircuitBreaker(open until {self.until:.1f}, {self.reason}: {self.message!r})"

    def is_due(self, now: float) -> bool:
        """Whether it is half open: a probe may be sent."""
        return self.is_open and self.until <= now

    def is_asked(self, now: float) -> bool:
        """Whether the server has asked for a hold that lasts yet, which no success cuts short."""
        return now < self._asked_until

    def close(self) -> None:
        """Something got through."""
        self._failures = 0
        self._asked_until = 0.0
        self._waited_s = 0.0
        self.until = 0.0
        self.is_open = False
        self.reason = None

    def failed(self, now: float, reason: ErrorKind, message: str) -> None:
        """Nothing got through: hold off, for longer each time."""
        # Flushes that fail together are one failure: the first has set the hold-off.
        if self.reason is None or self.until <= now:
            hold_s = min(FIRST_HOLD_S * 2.0**self._failures, LONGEST_HOLD_S)
            self._failures = min(self._failures + 1, 16)
            self._hold(now, reason, message, hold_s * (0.5 + self._uniform() / 2))

    def open(self, now: float, reason: ErrorKind, message: str, seconds: float | None) -> None:
        """Hold off for the ``seconds`` asked for, and a bit; without any, as after any failure."""
        if seconds:
            spread_s = max(min(seconds, KEY_REFUSED_HOLD_S) * SPREAD, LEAST_SPREAD_S)
            self._hold(now, reason, message, seconds + spread_s * self._uniform())
            self._asked_until = self.until
        else:
            self.failed(now, reason, message)

    def _hold(self, now: float, reason: ErrorKind, message: str, seconds: float) -> None:
        if self.reason is None:
            self._regained_at = now
        self.is_open = True
        self.message = message
        self.reason = reason
        self.until = max(self.until, now + seconds)

    def probe_wait_s(self, now: float, budget_s: float) -> float:
        """Seconds for which a flush with this budget may wait for a probe that is due."""
        regained_s = (now - self._regained_at) * budget_s / ALLOWANCE_REGAINED_S
        self._regained_at = now
        self._waited_s = max(0.0, self._waited_s - regained_s)
        return min(PROBE_WAIT_S, budget_s, max(0.0, budget_s - self._waited_s))

    def note_wait(self, seconds: float) -> None:
        """A flush has waited so long for a probe."""
        self._waited_s += seconds

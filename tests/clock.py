"""A clock that a test sets, in the place of the monotonic one."""

from __future__ import annotations


class Clock:
    """Seconds that pass when a test says so.

    Attributes:
        now: What the clock shows.
        tick: How far it moves each time that somebody looks.
    """

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.tick = 0.0

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

"""Bounds on wall time, which a busy machine breaks now and then, and a broken engine each time."""

from __future__ import annotations


class TooLate(AssertionError):
    """Something took too long. pytest tries such a test again: see ``only-rerun``."""


def within(took_s: float, at_most_s: float, *, at_least_s: float = 0.0) -> None:
    """Assert that something took so many seconds; of the lower bound no machine is an excuse."""
    assert took_s >= at_least_s
    if took_s > at_most_s:
        raise TooLate(f"took {took_s:.3f} s, where {at_most_s:.3f} s are allowed")

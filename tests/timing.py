"""Bounds on wall time, which a busy machine breaks now and then, and a broken engine each time."""

from __future__ import annotations


class OutOfTime(AssertionError):
    """Something came too late, or too early. pytest tries such a test again: see ``only-rerun``."""


def within(took_s: float, at_most_s: float, *, at_least_s: float = 0.0) -> None:
    """Assert that something took so many seconds."""
    assert took_s >= 0.0
    if not at_least_s <= took_s <= at_most_s:
        raise OutOfTime(f"took {took_s:.3f} s, and not {at_least_s:.3f} to {at_most_s:.3f} s")

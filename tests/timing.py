"""Bounds on wall time, which a busy machine breaks now and then, and a broken engine each time."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

STARVED_S = 1.0
"""Seconds for which the threads of a test waited for a processor, after which its failure may be
the machine's: half a budget."""
_TASKS = Path("/proc/self/task")


class OutOfTime(AssertionError):
    """Something came too late, or too early. pytest tries such a test again: see ``only-rerun``."""


def starved_s() -> float:
    """Seconds for which threads of this process that live have been ready to run, and did not.

    https://docs.kernel.org/scheduler/sched-stats.html
    """
    waited_ns = 0
    with suppress(OSError):
        for task in _TASKS.iterdir():
            with suppress(OSError, ValueError, IndexError):  # It has just ended.
                waited_ns += int((task / "schedstat").read_text().split()[1])
    return waited_ns / 1e9


def within(took_s: float, at_most_s: float, *, at_least_s: float = 0.0) -> None:
    """Assert that something took so many seconds."""
    assert took_s >= 0.0
    if not at_least_s <= took_s <= at_most_s:
        raise OutOfTime(f"took {took_s:.3f} s, and not {at_least_s:.3f} to {at_most_s:.3f} s")

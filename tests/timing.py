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


class Starvation:
    """How long the threads of this process had no processor, from when this is made."""

    def __init__(self) -> None:
        self._before_ns = _waited_ns()

    def seconds(self) -> float:
        """Return how long threads that live were ready to run, and did not; of all together.

        By thread, since a thread that ends takes its seconds with it: a sum over all could fall.
        """
        before_ns = self._before_ns
        waited_ns = (each - before_ns.get(name, 0) for name, each in _waited_ns().items())
        return sum(max(0, each) for each in waited_ns) / 1e9


def _waited_ns() -> dict[str, int]:
    """By thread, https://docs.kernel.org/scheduler/sched-stats.html."""
    waited_ns = {}
    with suppress(OSError):
        for task in _TASKS.iterdir():
            with suppress(OSError, ValueError, IndexError):  # It has just ended.
                waited_ns[task.name] = int((task / "schedstat").read_text().split()[1])
    return waited_ns


def within(took_s: float, at_most_s: float, *, at_least_s: float = 0.0) -> None:
    """Assert that something took so many seconds."""
    assert took_s >= 0.0
    if not at_least_s <= took_s <= at_most_s:
        raise OutOfTime(f"took {took_s:.3f} s, and not {at_least_s:.3f} to {at_most_s:.3f} s")

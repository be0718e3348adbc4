"""Bounds on wall time, which a busy machine breaks now and then, and a broken engine each time."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

STARVED_S = 1.0
"""Seconds for which the threads of a test waited for a processor, after which its failure may be
the machine's: half a budget."""
_TASKS = Path("/proc/self/task")
_STAT = Path("/proc/stat")


class OutOfTime(AssertionError):
    """Something came too late, or too early. pytest tries such a test again: see ``only-rerun``."""


class Starvation:
    """How long the threads of this process have had no processor since this was made."""

    def __init__(self) -> None:
        self._before = _waited_ns()
        self._stolen_before_s = _stolen_s()

    def seconds(self) -> float:
        """Seconds for which threads that live were ready to run, and did not, or the machine was.

        By thread, since one that has ended meanwhile takes its seconds with it.
        """
        waited_ns = sum(
            max(0, waited - self._before.get(thread, 0)) for thread, waited in _waited_ns().items()
        )
        return waited_ns / 1e9 + _stolen_s() - self._stolen_before_s


def _waited_ns() -> dict[str, int]:
    """By thread, https://docs.kernel.org/scheduler/sched-stats.html."""
    waited = {}
    with suppress(OSError):
        for task in _TASKS.iterdir():
            with suppress(OSError, ValueError, IndexError):  # It has just ended.
                waited[task.name] = int((task / "schedstat").read_text().split()[1])
    return waited


def _stolen_s() -> float:
    """Seconds that a hypervisor has given to others: https://docs.kernel.org/filesystems/proc.html."""
    with suppress(OSError, ValueError, IndexError):
        return int(_STAT.read_text().split(maxsplit=9)[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def within(took_s: float, at_most_s: float, *, at_least_s: float = 0.0) -> None:
    """Assert that something took so many seconds."""
    assert took_s >= 0.0
    if not at_least_s <= took_s <= at_most_s:
        raise OutOfTime(f"took {took_s:.3f} s, and not {at_least_s:.3f} to {at_most_s:.3f} s")

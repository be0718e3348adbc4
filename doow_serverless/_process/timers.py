"""Calls back at a moment on the monotonic clock, from one thread for the whole process."""

from __future__ import annotations

import threading
from itertools import count
from time import monotonic

from .forks import reset_in_child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Timers:
    """Calls that are due at a moment; a thread, started by the first, sleeps until the earliest.

    A call that is later than the one slept for does not wake the thread, and one that was cancelled
    leaves it asleep: so an invocation that ends before its deadline costs two entries of a dict.
    """

    # Never begun anew: a forked child still cancels the numbers that it was given in the parent.
    _numbers = count()

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._calls: dict[int, tuple[float, Callable[[], object]]] = {}
        self._sleeps_until = float("inf")
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Timers({len(self._calls)} pending)"

    def call_at(self, at: float, call: Callable[[], object]) -> int:
        """Have ``call`` called at ``at`` (monotonic seconds), unless it is cancelled before.

        It runs on the thread of the timers, and must neither block nor raise.

        Returns:
            The number to give to :meth:`cancel`.
        """
        number = next(self._numbers)
        with self._changed:
            self._calls[number] = (at, call)
            if self._thread is not None:
                if at < self._sleeps_until:
                    self._changed.notify()
                return number
            thread = threading.Thread(target=self._run, name="doow-timers", daemon=True)
            self._thread = thread
        # Not under the lock: where gevent has patched `threading` since, the thread runs in ours,
        # and would wait for the lock for ever.
        try:
            thread.start()
        except RuntimeError:  # No more threads: the next call tries again.
            self._thread = None
        return number

    def cancel(self, number: int) -> None:
        """Do not make the call of this number, unless it has begun."""
        self._calls.pop(number, None)

    def _run(self) -> None:
        while True:
            for call in self._wait_for_due():
                call()

    def _wait_for_due(self) -> list[Callable[[], object]]:
        with self._changed:
            # Copies, made in one step: what is cancelled vanishes at any time, without the lock.
            earliest = min((at for at, _ in list(self._calls.values())), default=float("inf"))
            now = monotonic()
            if earliest > now:
                self._sleeps_until = earliest
                self._changed.wait(min(earliest - now, threading.TIMEOUT_MAX))
                self._sleeps_until = float("-inf")
            now = monotonic()
            due = [(number, call) for number, (at, call) in list(self._calls.items()) if at <= now]
            return [call for number, call in due if self._calls.pop(number, None) is not None]


timers = Timers()
"""Those of this process."""


@reset_in_child
def _after_fork_in_child() -> None:
    timers.__init__()  # type: ignore[misc]  # its thread stayed with the parent

"""Calls back shortly before a deadline, from one thread for the whole process."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from itertools import count
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Guard:
    """Watches deadlines; its thread sleeps until the earliest, and starts with the first.

    A deadline that is later than the one slept for does not wake the thread, and one that was
    forgotten leaves it asleep: so an invocation that ends in time costs two entries of a dict.
    """

    # Not begun anew in a forked child, whose invocations forget the numbers they had in the parent.
    _numbers = count()

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._watched: dict[int, tuple[float, Callable[[], object]]] = {}
        self._sleeps_until = float("inf")
        self._thread: threading.Thread | None = None

    def watch(self, at: float, call: Callable[[], object]) -> int:
        """Have ``call`` called at ``at`` (monotonic seconds), unless it is forgotten before.

        It must neither block nor raise. Returns the number to give to :meth:`forget`.
        """
        with self._changed:
            number = next(self._numbers)
            self._watched[number] = (at, call)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="doow-guard", daemon=True)
                with suppress(RuntimeError):  # No more threads: the next deadline tries again.
                    thread.start()
                    self._thread = thread
            elif at < self._sleeps_until:
                self._changed.notify()
            return number

    def forget(self, number: int) -> None:
        """Watch this deadline no more."""
        self._watched.pop(number, None)

    def _run(self) -> None:
        while True:
            for call in self._wait_for_due():
                call()

    def _wait_for_due(self) -> list[Callable[[], object]]:
        with self._changed:
            # Copies, made in one step: what is forgotten vanishes at any time, without the lock.
            earliest = min((at for at, _ in list(self._watched.values())), default=float("inf"))
            now = monotonic()
            if earliest > now:
                self._sleeps_until = earliest
                self._changed.wait(min(earliest - now, threading.TIMEOUT_MAX))
                self._sleeps_until = float("-inf")
            now = monotonic()
            due = [
                (number, call) for number, (at, call) in list(self._watched.items()) if at <= now
            ]
            return [call for number, call in due if self._watched.pop(number, None) is not None]


guard = Guard()
"""The guard of this process."""


def _after_fork() -> None:
    guard.__init__()  # type: ignore[misc]  # its thread stayed with the parent


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_after_fork)

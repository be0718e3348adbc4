"""Threads that take turns, on a clock that moves only when all of them wait."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING

from doow_serverless._process.workers import do_here
from tests.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Callable

NEVER = float("inf")
MOST_TURNS = 2_000


class Turns:
    """In the place of threads, of the locks and events that they wait for, and of time.

    One thread runs at a time, until it ends or waits. So each test is one order of things, the same
    each time, and takes no longer than its code does.

    Attributes:
        clock: What all of them go by.
        can_start: Whether the system starts more threads.
        is_inline: Whether jobs run at once, on the thread that submits them.
        started: How many threads were started.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.can_start = True
        self.is_inline = False
        self.started = 0
        self._me = threading.get_ident()
        self._sleepers: list[Sleeper] = []
        self._numbers = count()
        self._is_over = False

    # ── in the place of `IdleThreads` ──────────────────────────────────────────────────────────

    def run(self, job: Callable[[], None]) -> None:
        """Run a job of ours."""
        if not self.can_start:
            raise RuntimeError("can't start new thread")

        if self.is_inline:
            do_here(job)
        else:
            self.start(lambda: do_here(job))

    def start(self, call: Callable[[], object]) -> None:
        """Call this on a thread of the application's, once its turn comes."""
        self.started += 1
        sleeper = self._sleeper(self.clock.now, None)

        def begin() -> None:
            sleeper.go.wait()
            try:
                call()
            finally:
                self._next()

        threading.Thread(target=begin, daemon=True).start()

    def at(self, seconds: float, call: Callable[[], object]) -> None:
        """Call this after so many seconds."""

        def wait() -> None:
            self.sleep(seconds)
            call()

        self.start(wait)

    # ── waiting ────────────────────────────────────────────────────────────────────────────────

    def sleep(self, seconds: float, signal: Signal | None = None) -> bool:
        """Wait so long, or for ``signal``; return whether that came."""
        if signal is not None and signal.is_set():
            return True
        me = self._sleeper(self.clock.now + seconds, signal)
        self._next()
        me.go.wait()
        if me.raises is not None:
            raise me.raises
        return signal is not None and signal.is_set()

    def rest(self) -> None:
        """Let all others go on that need no time for it."""
        while any(one.due <= self.clock.now for one in self._sleepers):
            self.sleep(0.0)

    def freeze(self, seconds: float) -> None:
        """The process stands still for so long, whatever it was about."""
        self.clock.now += seconds

    def interrupt(self, seconds: float, raised: BaseException) -> None:
        """After so many seconds the handler of a signal raises this on the test's own thread."""

        def strike() -> None:
            (mine,) = (one for one in self._sleepers if one.is_mine)
            mine.raises = raised
            mine.until = 0.0

        self.at(seconds, strike)

    def event(self) -> Signal:
        """In the place of `threading.Event`."""
        return Signal(self, is_open=False)

    def lock(self) -> Signal:
        """In the place of `threading.Lock`."""
        return Signal(self, is_open=True)

    def settle(self) -> None:
        """Let all others go on until they end; what would hang for ever does not."""
        self._is_over = True
        while self._sleepers:
            self.sleep(0.0)

    def _sleeper(self, until: float, signal: Signal | None) -> Sleeper:
        number = next(self._numbers)
        is_mine = threading.get_ident() == self._me
        self._sleepers.append(sleeper := Sleeper(until, signal, number, is_mine))
        return sleeper

    def _next(self) -> None:
        """Hand over to whoever is due first."""
        sleepers = self._sleepers
        following = min(sleepers, key=lambda one: (0.0 if self._is_over else one.due, one.number))
        if (following.due == NEVER and not self._is_over) or following.number > MOST_TURNS:
            following = next((one for one in sleepers if one.is_mine), following)
            following.raises = AssertionError("all wait for ever")
        else:
            self.clock.now = max(self.clock.now, following.due if following.due < NEVER else 0.0)
        sleepers.remove(following)
        following.go.set()


class Sleeper:
    """A thread that waits for its turn."""

    def __init__(self, until: float, signal: Signal | None, number: int, is_mine: bool) -> None:
        self.until = until
        self._signal = signal
        self.number = number
        self.is_mine = is_mine
        self.raises: BaseException | None = None
        self.go = threading.Event()

    @property
    def due(self) -> float:
        """When its turn comes; before all that wait for a time if it was signalled."""
        return 0.0 if self._signal is not None and self._signal.is_set() else self.until


class Signal:
    """A lock, or an event, for which threads wait in turns."""

    def __init__(self, turns: Turns, *, is_open: bool) -> None:
        self._turns = turns
        self._is_open = is_open

    def is_set(self) -> bool:
        return self._is_open

    def set(self) -> None:
        self._is_open = True

    def clear(self) -> None:
        self._is_open = False

    def wait(self, timeout: float | None = None) -> bool:
        return self._turns.sleep(NEVER if timeout is None else timeout, self)

    def acquire(self, timeout: float | None = None) -> bool:
        if self.wait(timeout):
            self._is_open = False
            return True
        return False

    def release(self) -> None:
        if self._is_open:
            raise RuntimeError("release unlocked lock")
        self._is_open = True

"""A flush as its caller sees it: handed over to a worker, and waited for.

The caller is nothing but a timer. It holds no lock of the engine, so whatever interrupts it, the
handler of a signal or a finalizer, may call the engine.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from doow_serverless._outcome import Outcome
from doow_serverless._process.clock import FROZEN_S, WATCH_S
from doow_serverless.errors import ErrorKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from doow_serverless._process.clock import Budget, Clock
    from doow_serverless._recording.buffer import Buffer

    from .flight import Flight

    Look = Callable[["Flushing"], object]

GRACE_S = 1.0
"""Seconds beyond the budget in which a worker writes down what was not delivered."""


class Flushing:
    """A flush that a worker makes and another thread, or a task, waits for.

    Args:
        buffer: The outermost buffer of an invocation, or the unattended one.
        budget: The time that it may take.
        clock: Monotonic seconds.

    Attributes:
        flights: What it waits for.
        outcome: What became of the events; None until they are accounted for.
        is_over: Whether there is nothing to wait for any more.
        wake: Wakes the caller.
    """

    __slots__ = (
        "_changed",
        "_clock",
        "_is_ended",
        "_is_taken",
        "_leaves_at",
        "_look_at",
        "budget",
        "buffer",
        "flights",
        "is_over",
        "outcome",
        "wake",
    )

    def __init__(
        self,
        buffer: Buffer,
        budget: Budget,
        clock: Clock,
    ) -> None:
        self.buffer = buffer
        self.budget = budget
        self._clock = clock
        self.flights: list[Flight] = []
        self.outcome: Outcome | None = None
        self.is_over = False
        self._is_taken = [False]
        self._is_ended = [False]
        # A key that is fetched is no freeze: somebody looks, from the beginning.
        self._look_at = min(budget.ends_at, budget.began_at + WATCH_S)
        self._leaves_at = budget.ends_at + GRACE_S
        self._changed = threading.Lock()
        self._changed.acquire()
        self.wake: Callable[[], object] = self._signal

    def __repr__(self) -> str:
        state = "over" if self.is_over else "under way"
        return f"Flushing({state}, {self.flights!r})"

    # ── the worker's side ──────────────────────────────────────────────────────────────────────

    def take(self) -> bool:
        """Whether the one who asks is to make it: the first who does."""
        return _first(self._is_taken)

    def take_end(self) -> bool:
        """Whether the one who asks is to account for it: the first who does."""
        return _first(self._is_ended)

    def look_again(self, seconds: float) -> None:
        """Somebody must look again after so long, unless that is due earlier already."""
        at = self._clock() + seconds
        if self.outcome is None:  # After a freeze it may be later than the caller knows of.
            self._leaves_at = max(self._leaves_at, at + GRACE_S)
        if at < self._look_at:
            self._look_at = at
            self.wake()

    def leave_within(self, seconds: float) -> None:
        """The events are accounted for; the caller waits no longer for the hooks than that."""
        self._leaves_at = self._clock() + seconds
        self.wake()

    def account(self, outcome: Outcome) -> None:
        """All that it waited for is settled or kept."""
        outcome.elapsed_s = self._clock() - self.budget.began_at
        self.outcome = outcome

    def unknown(self) -> Outcome:
        """The outcome for a caller that leaves before that: nothing is known to have arrived."""
        outcome = Outcome(elapsed_s=self._clock() - self.budget.began_at)
        if self.buffer.in_hand > 0:
            outcome.add_unsent(ErrorKind.TIMEOUT, self.buffer.in_hand)
        return outcome

    def end(self) -> None:
        """There is nothing to wait for any more."""
        self.is_over = True
        self.wake()
        # It would keep its buffer until the next collection of garbage, if there is one.
        self.flights, self.wake = [], _wake_nobody

    def _signal(self) -> None:
        with suppress(RuntimeError):  # It has been woken already.
            self._changed.release()

    def now(self) -> float:
        """The time on the clock of the budget."""
        return self._clock()

    # ── the caller's side ──────────────────────────────────────────────────────────────────────

    def wait(self, look: Look) -> None:
        """Block until it is over, and have ``look`` called when it is time to."""
        while (pause_s := self.pause_s(look)) is not None:
            began = self._clock()
            self._changed.acquire(timeout=pause_s)
            self.note_pause(began)

    def pause_s(self, look: Look) -> float | None:
        """Seconds for which the caller is to wait; None if it is to wait no more."""
        now = self._clock()
        if self.is_over or now >= self._leaves_at:
            return None
        if now >= self._look_at:
            self._look_at = now + WATCH_S  # Or what a worker that has looked says.
            look(self)
        return min(max(0.0, min(self._look_at, self._leaves_at) - now), WATCH_S)

    def note_pause(self, began: float) -> None:
        """The caller has waited since ``began``; for so long that the process was frozen?"""
        gap_s = self._clock() - began
        if gap_s > FROZEN_S:
            self.budget.extend(gap_s)
            self._leaves_at += gap_s


def _wake_nobody() -> None:
    """The caller has been woken for the last time."""


def _first(is_taken: list[bool]) -> bool:
    try:
        is_taken.pop()  # One step, whichever threads ask at once.
    except IndexError:
        return False
    return True

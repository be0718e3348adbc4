"""Delivers what an invocation has recorded shortly before the platform kills it, and once more."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial

from doow_serverless._process import machine
from doow_serverless._process.forks import begins_anew, reset_in_child
from doow_serverless._process.timers import timers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LEAD_S = 0.25
"""Seconds before the deadline at which what was recorded so far is delivered, on a core of one's
own; on a part of one, earlier as well."""
LONGEST_LEAD_S = 2.0
LAST_WORDS_S = 0.08
"""Seconds of these that are left for writing down what could not be delivered."""
PUNCTUAL_S = 0.02
"""Seconds by which the guard may be late where nothing says that the machine is slow."""
_TURN_S = 0.0005
"""Seconds for which a handler that computes may keep other threads from running, near its end."""
_changing = threading.Lock()
_restless = 0
"""Invocations that are near their end."""
_usual_interval_s = 0.0


class Schedule:
    """When to deliver, and how long, on a machine that gives a process this part of a core.

    Args:
        share: From 0.0 up to 1.0.

    Attributes:
        leads_s: Seconds before the deadline, from the first delivery to the last.
        last_words_s: Seconds before it at which writing down begins, unless the last delivery finds
            the machine punctual.
    """

    def __init__(self, share: float) -> None:
        # A process whose share of a period is used up stands still until the next one.
        self.last_words_s = LAST_WORDS_S + 2 * machine.PERIOD_S * (1.0 - share)
        lead_s = min(LEAD_S / share, LONGEST_LEAD_S)
        self.leads_s: list[float] = []
        while lead_s > LEAD_S * 1.5:
            self.leads_s.append(lead_s)
            lead_s /= 2
        self.leads_s.append(LEAD_S)

    def __repr__(self) -> str:
        return f"Schedule({self.leads_s}, last words {self.last_words_s} s)"


_schedule: Schedule | None = None


def schedule() -> Schedule:
    """That of this machine; looked up once, when the first invocation with a deadline begins."""
    global _schedule
    if _schedule is None:
        _schedule = Schedule(machine.cpu_share())
    return _schedule


class Guard:
    """Watches over one invocation until it is cancelled, or the invocation is killed.

    Args:
        ends_at: The platform's deadline, in seconds on the monotonic clock.
        deliver: Has others deliver what was recorded so far, given what tells the seconds to wait.
    """

    __slots__ = (
        "_deliver",
        "_due_at",
        "_ends_at",
        "_is_over",
        "_is_restless",
        "_late_s",
        "_leads_s",
        "_number",
    )

    def __init__(self, ends_at: float, deliver: Callable[[Callable[[], float]], None]) -> None:
        self._ends_at = ends_at
        self._deliver = deliver
        self._is_over = False
        self._is_restless = False
        self._late_s = 0.0
        left_s = ends_at - time.monotonic()
        self._leads_s = [lead_s for lead_s in schedule().leads_s if lead_s < left_s]
        self._number: int | None = None
        self._wait()

    def __repr__(self) -> str:
        return f"Guard(ends_at={self._ends_at}, leads_s={self._leads_s})"

    def cancel(self) -> None:
        """The invocation is over."""
        self._is_over = True
        if self._number is not None:
            timers.cancel(self._number)
        if self._is_restless:
            self._be_restless(False)

    def _wait(self) -> None:
        if self._leads_s:
            self._due_at = self._ends_at - self._leads_s.pop(0)
            self._number = timers.call_at(self._due_at, self._rescue)
        else:  # Whatever becomes of the invocation, which may never be ended.
            self._number = timers.call_at(self._ends_at, self.cancel)

    def _rescue(self) -> None:
        # On the timers' thread, which a handler that computes lets run only now and then: so are
        # the threads that deliver.
        self._be_restless(True)
        self._late_s = max(self._late_s, time.monotonic() - self._due_at)
        last_words_s = schedule().last_words_s
        if not self._leads_s and self._late_s < PUNCTUAL_S:
            last_words_s = LAST_WORDS_S
        if not self._is_over:
            self._deliver(partial(_seconds_until, self._ends_at - last_words_s))
            self._wait()

    def _be_restless(self, restless: bool) -> None:
        """Have threads take turns more often, or as often as they did."""
        global _restless, _usual_interval_s
        with _changing:
            if restless == self._is_restless or (restless and self._is_over):
                return
            self._is_restless = restless
            if restless and not _restless:
                _usual_interval_s = sys.getswitchinterval()
                sys.setswitchinterval(min(_TURN_S, _usual_interval_s))
            # A forked child has begun anew, and may still end what its parent had begun.
            _restless = max(0, _restless + (1 if restless else -1))
            if not _restless:
                sys.setswitchinterval(_usual_interval_s)


def _seconds_until(moment: float) -> float:
    return moment - time.monotonic()


@reset_in_child
def _open_lock() -> None:
    global _changing
    _changing = threading.Lock()


@begins_anew
def _leave_to_others() -> None:
    """No invocation is near its end here, and another machine may give another part of a core."""
    global _restless, _schedule
    _schedule = None
    with _changing:
        if _restless:
            _restless = 0
            sys.setswitchinterval(_usual_interval_s)

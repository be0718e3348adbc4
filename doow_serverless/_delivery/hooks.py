"""What became of events is told to the user: by hooks, on a thread of their own, or by the log."""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from time import monotonic

from doow_serverless._process.log import call_hook, warn
from doow_serverless._process.workers import Workers, is_job_here

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from doow_serverless._config import Config
    from doow_serverless._outcome import Outcome
    from doow_serverless.errors import DoowError

HOOKS_WAIT_S = 0.1
"""Seconds for which a caller waits for the user's hooks, though its budget is used up."""
LATE_S = 1.0
"""Seconds after which nobody waits for hooks that have not returned."""
MOST_WAITING = 1_000
"""Calls of hooks that may wait; those that come when so many do are dropped, and counted."""


class Reporter:
    """Calls the hooks in order, one at a time; one that hangs holds up nothing but other hooks.

    Args:
        config: Names the hooks.

    Attributes:
        is_wanted: Whether there is any hook.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self.is_wanted = config.on_error is not None or config.on_flush is not None
        self._thread = Workers(1)
        self._calls: deque[Callable[[], object]] = deque()
        self._began_at: float | None = None
        self._dropped = 0

    def __repr__(self) -> str:
        return f"Reporter({len(self._calls)} calls waiting, {self._dropped} dropped)"

    @property
    def is_late(self) -> bool:
        """Whether a hook has not returned for so long that nobody waits for it any more."""
        return self._has_run_for(LATE_S)

    def _has_run_for(self, seconds: float) -> bool:
        began_at = self._began_at
        return began_at is not None and monotonic() - began_at >= seconds

    def report(self, error: DoowError) -> None:
        """Tell of ``error``; wait a little for the hook, unless this is a thread of delivery.

        Nor if a hook is slow: many errors must not cost this wait each.
        """
        done = threading.Event()
        may_wait = not (self._has_run_for(HOOKS_WAIT_S / 2) or is_job_here())
        self.tell([error], None, done.set)
        if may_wait:
            done.wait(HOOKS_WAIT_S)

    def tell(
        self, errors: Sequence[DoowError], outcome: Outcome | None, then: Callable[[], object]
    ) -> None:
        """Have the hooks told of errors and an outcome, and ``then`` called; does not block.

        If there is no hook for them, the errors are logged, here.
        """
        has_hook = bool(self._config.on_error and errors) or self._tells(outcome)
        call = partial(self.tell_here, errors, outcome)
        if not has_hook:
            call()
            then()
        elif len(self._calls) >= MOST_WAITING:
            self._dropped += 1
            then()
        else:
            self._calls.append(partial(_both, call, then))
            self._thread.run(self._call_next)

    def tell_here(self, errors: Sequence[DoowError], outcome: Outcome | None) -> None:
        """Tell the hooks on this thread."""
        for error in errors:
            if self._config.on_error is not None:
                call_hook("on_error", self._config.on_error, error)
            else:
                warn(f"{error.kind}: {error}")
        if outcome is not None and self._config.on_flush is not None:
            call_hook("on_flush", self._config.on_flush, outcome)

    def _tells(self, outcome: Outcome | None) -> bool:
        return outcome is not None and self._config.on_flush is not None

    def _call_next(self) -> None:
        self._began_at = monotonic()
        try:
            self._calls.popleft()()
        finally:
            self._began_at = None
        dropped, self._dropped = self._dropped, 0
        if dropped:
            warn(f"{dropped} calls of hooks were dropped: those before them took too long")


def _both(call: Callable[[], object], then: Callable[[], object]) -> None:
    try:
        call()
    finally:
        then()

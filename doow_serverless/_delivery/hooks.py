"""What became of events is told to the user: by hooks, on a thread of their own, or by the log."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

from doow_serverless._process.log import call_hook, counted, warn
from doow_serverless._process.workers import Workers

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
    """Calls the hooks in order, one at a time; a hook that hangs holds up nothing but hooks.

    Args:
        config: Names the hooks.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._thread = Workers(1)
        self._calls: deque[Callable[[], object]] = deque()
        self._is_running = threading.Lock()
        self._began_at: float | None = None
        self._dropped = 0

    def __repr__(self) -> str:
        return f"Reporter({len(self._calls)} calls waiting, {self._dropped} dropped)"

    @property
    def is_late(self) -> bool:
        """Whether a hook has not returned for so long that nobody waits for it."""
        began_at = self._began_at
        return began_at is not None and monotonic() - began_at > LATE_S

    def report(self, error: DoowError) -> None:
        """Tell of ``error``, and wait a little until that is done."""
        done = threading.Event()
        if self.tell([error], None, done.set) and not self.is_late:
            done.wait(HOOKS_WAIT_S)

"""The tracker that the functions of the package use: the current one, or the process's own."""

from __future__ import annotations

import os
import threading

from ._api import Recorder
from ._engine import Tracker
from ._process.log import report_fault
from ._recording.buffer import current

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ._recording.buffer import Scope

_making = threading.Lock()
_tracker: Tracker | None = None


class Current(Recorder):
    """The functions of the package: the tracker of the current invocation, or else the default."""

    def _where(self) -> tuple[Tracker, Scope | None]:
        scope = current.get()
        return (default() if scope is None else scope.tracker), scope


def default() -> Tracker:
    """The process's own tracker; made from the environment at first use."""
    global _tracker
    if _tracker is None:
        with _making:
            if _tracker is None:
                _tracker = _from_environment()
    return _tracker


def _from_environment() -> Tracker:
    try:
        return Tracker()
    except Exception as fault:
        # No environment makes it raise; but if one did, no handler may hear of it.
        report_fault("reading the environment", fault)
        return Tracker(enabled=False, environ={})


def _begin_anew() -> None:
    """In a forked child, forget who was making a tracker: that thread is not here."""
    global _making
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows does not fork.
    os.register_at_fork(after_in_child=_begin_anew)


def configure(api_key: str | None = None, **options: Any) -> Tracker:
    """Make the tracker that the functions of the package use from now on.

    Optional: without it the environment is all that counts. What an earlier tracker has not
    delivered is taken over.

    Returns:
        The tracker.

    Raises:
        ConfigurationError: An option is wrong; then nothing has changed.
    """
    global _tracker
    tracker = Tracker(api_key, **options)
    with _making:
        earlier, _tracker = _tracker, tracker
    if earlier is not None:
        tracker.succeed(earlier)
    return tracker

"""The end of the process: one last bounded flush, at SIGTERM and when the interpreter exits.

Lambda sends SIGTERM only where an extension is registered; Azure kills its workers outright; Vercel
sends it, and does not let the interpreter exit in an orderly way, so that only the signal is heard.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from contextlib import suppress

from .clock import Budget
from .forks import members
from .log import report_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

SIGTERM_LIMIT_S = 0.25
"""Seconds for the last flush at SIGTERM: Lambda grants 300 ms, Vercel 500 ms."""
EXIT_LIMIT_S = 2.0
"""Seconds for the last flush when the interpreter exits."""

_is_installed = False
_earlier: Any = None
_is_listening = False


def install() -> None:
    """Have all members flush once more when the process ends.

    Once for the process. A handler of SIGTERM that is there already runs afterwards; one that the
    application sets later replaces ours.
    """
    global _is_installed, _earlier, _is_listening
    if not _is_installed:
        _is_installed = True
        atexit.register(_flush_at_exit)
    # Only the main thread may set a handler: where another comes first, the next time counts.
    if not _is_listening and threading.current_thread() is threading.main_thread():
        _is_listening = True
        _earlier = signal.getsignal(signal.SIGTERM)
        # None is a handler that C code has set, which could not be called on.
        if _earlier not in (None, signal.SIG_IGN):
            with suppress(ValueError):  # Not the main interpreter.
                signal.signal(signal.SIGTERM, _on_sigterm)


def _flush_at_exit() -> None:
    if not _flush_within(EXIT_LIMIT_S):
        # CPython 3.12.0 and 3.12.1 start no threads at this stage. No lock can be held here.
        _flush(EXIT_LIMIT_S)


def _flush_within(limit_s: float) -> bool:
    # On a thread of its own: the signal may have come while this one holds a lock that is needed.
    flushing = threading.Thread(target=_flush, args=(limit_s,), name="doow-last", daemon=True)
    try:
        flushing.start()
    except RuntimeError:
        return False
    flushing.join(limit_s + 0.05)
    return True


def _flush(limit_s: float) -> None:
    """One flush of every member, all within ``limit_s`` seconds."""
    budget = Budget(limit_s)
    for member in members():
        try:
            member.last_flush(budget.remaining())
        except Exception as fault:
            report_fault("the last flush", fault)


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    _flush_within(SIGTERM_LIMIT_S)
    if callable(_earlier):
        _earlier(number, frame)
    else:
        # The default ends the process, and tells its parent that it was this signal.
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

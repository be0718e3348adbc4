"""Tells exceptions that interrupt the application from those that the called code raises itself."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


_SCHEDULERS = {"greenlet", "gevent", "eventlet"}


def is_from_signal(fault: BaseException) -> bool:
    """Return True if ``fault`` comes from a signal or a scheduler, not from the code that ran.

    Handlers of signals run in the middle of whatever the main thread does, and many raise: a
    timeout that is set by ``SIGALRM`` expects to end the function. gevent and eventlet throw their
    timeouts and kills into a greenlet in the same way. Ctrl-C counts wherever it is raised.
    """
    kind = type(fault)
    if issubclass(kind, KeyboardInterrupt):
        return True
    if not issubclass(kind, Exception) and kind.__module__.partition(".")[0] in _SCHEDULERS:
        return True
    codes = {_code_of(signal.getsignal(number)) for number in signal.valid_signals()} - {None}
    traceback = fault.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_code in codes:
            return True
        traceback = traceback.tb_next
    return False


def _code_of(handler: Any) -> object:
    handler = getattr(handler, "func", handler)  # Of a partial.
    code = getattr(handler, "__code__", None)
    return code or getattr(getattr(type(handler), "__call__", None), "__code__", None)  # noqa: B004

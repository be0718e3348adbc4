"""Whose an exception is: what the handler of a signal raises is the application's, not a fault."""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_from_signal(fault: BaseException) -> bool:
    """Whether the handler of a signal has raised ``fault``, or it is no Exception at all.

    Such handlers run in the middle of whatever the main thread does, and many raise: a timeout that
    is set by ``SIGALRM`` does, and expects to end the function, not this library's work.
    """
    if not isinstance(fault, Exception):  # As of Ctrl-C.
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

"""AWS's durable functions, whose code runs again from its beginning after each suspension.

What a step has done is not done again, but all code between steps is, with the context saying that
it replays; and a suspension is a BaseException.
https://docs.aws.amazon.com/lambda/latest/dg/durable-functions.html
"""

from __future__ import annotations

import sys

from doow_serverless._process.signals import is_from_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType
    from typing import Any

_SDK = "aws_durable_execution_sdk_python"
_VARARGS = 0x04


def are_possible() -> bool:
    """Whether this process knows durable functions."""
    return _SDK in sys.modules


def is_replaying() -> bool:
    """Whether the running code is that of a durable function which has run it before.

    Each child context replays for itself, and nothing tells which one is current but the arguments
    of the functions that run.
    """
    kind = getattr(sys.modules.get(f"{_SDK}.context"), "DurableContext", None)
    try:
        context = None if kind is None else _innermost(kind)
        return context is not None and bool(context.is_replaying())
    except BaseException as fault:
        if is_from_signal(fault):
            raise
        return False  # An argument of the user's, or a stand-in of a test: what it records counts.


def _innermost(kind: Any) -> Any:
    """The context (of ``kind``) that the SDK has last passed on; None where there is none.

    Only its own frames are looked into, and those of what it calls: up to Python 3.12 that keeps
    their local variables alive until they return.
    """
    frame: FrameType | None = sys._getframe(2)
    is_sdks = frame is not None and _is_sdks(frame)
    while frame is not None:
        caller = frame.f_back
        is_callers = caller is not None and _is_sdks(caller)
        if is_sdks or is_callers:
            for value in _arguments(frame):
                if isinstance(value, kind):
                    return value
        frame, is_sdks = caller, is_callers
    return None


def _is_sdks(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith(_SDK)


def _arguments(frame: FrameType) -> Iterator[Any]:
    code = frame.f_code
    given = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & _VARARGS)
    values = frame.f_locals if given else {}
    for name in code.co_varnames[:given]:
        value = values.get(name)
        yield from value if type(value) is tuple else (value,)


def has_failed(kind: type[BaseException]) -> bool:
    """Whether what ends by an exception of this kind has failed: a suspension goes on later."""
    return not (
        are_possible()
        and any(
            base.__name__ == "SuspendExecution" and base.__module__.startswith(_SDK)
            for base in kind.__mro__
        )
    )

"""The warnings of this library, and the end of its own faults: neither may reach a handler."""

from __future__ import annotations

import sys
from threading import get_ident

from doow_serverless._redaction import clean, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def counted(events: int) -> str:
    """``"1 event"``, ``"2 events"``."""
    return f"{events} event{'' if events == 1 else 's'}"


def warn(message: str) -> None:
    """Log one line as ``doow_serverless``; never raises what a handler of the log raises."""
    _log("warning", message)


def debug(message: str) -> None:
    """One line at debug level, whatever level the application's logging is set to."""
    _log("debug", message)


_logging: set[int] = set()
"""Threads that are logging for us: what their handlers record may have to be told as well."""
_MOST_SAID = 20
_said: set[str] = set()


def _log(level: str, message: str) -> None:
    """Have the application's logging tell it, whose handlers, formatters and filters may raise."""
    from logging import DEBUG, getLogger  # Not needed while all is well.

    message = clean(message, 1_000)
    me = get_ident()
    if me in _logging:  # A handler that records: its own trouble would be told without end.
        _say(message)
        return
    _logging.add(me)
    try:
        logger = getLogger("doow_serverless")
        if level == "debug":
            logger.setLevel(DEBUG)
        getattr(logger, level)("%s", message)
    except BaseException as trouble:
        _pass_on_signal(trouble)
        _say(f"{message} (logging raised {show(trouble, 200)})")
    finally:
        _logging.discard(me)


def _say(message: str) -> None:
    """Tell it without logging: a few lines, each once, where the process complains."""
    if message not in _said and len(_said) < _MOST_SAID and sys.__stderr__ is not None:
        _said.add(message)
        try:
            sys.__stderr__.write(f"doow_serverless: {message}\n")
        except BaseException as trouble:  # It is closed, or nobody reads it.
            _pass_on_signal(trouble)


def _pass_on_signal(fault: BaseException) -> None:
    from .signals import is_from_signal  # Not needed while all is well.

    if is_from_signal(fault):
        raise fault


def report_fault(where: str, fault: BaseException) -> None:
    """Say that this library failed, and that nothing else did.

    Raises:
        BaseException: ``fault``, where it is none of ours: the handler of a signal has raised it.
    """
    _pass_on_signal(fault)
    tell_fault(where, fault)


def tell_fault(where: str, fault: BaseException) -> None:
    """As :func:`report_fault`, on a thread of ours, where no handler of a signal runs."""
    warn(f"a fault of doow-serverless itself in {where}: {show(fault, 200)}")


def call_hook(name: str, hook: Callable[..., object], argument: object) -> None:
    """Call a user's hook. Whatever it raises is logged once, and goes no further.

    Raises:
        BaseException: If a signal's handler, or a scheduler, has raised it while the hook ran.
    """
    try:
        hook(argument)
    except BaseException as fault:
        _pass_on_signal(fault)
        warn(f"{name} raised {show(fault, 200)}")

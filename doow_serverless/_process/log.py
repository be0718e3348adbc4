"""The warnings of this library, and the end of its own faults: neither may reach a handler."""

from __future__ import annotations

from doow_serverless._redaction import clean, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def counted(events: int) -> str:
    """``"1 event"``, ``"2 events"``."""
    return f"{events} event{'' if events == 1 else 's'}"


def warn(message: str) -> None:
    """One line in the logger ``doow_serverless``."""
    from logging import getLogger  # Not needed while all is well.

    getLogger("doow_serverless").warning("%s", clean(message, 1_000))


def debug(message: str) -> None:
    """One line at debug level, whatever level the application's logging is set to."""
    from logging import DEBUG, getLogger

    logger = getLogger("doow_serverless")
    logger.setLevel(DEBUG)
    logger.debug("%s", clean(message, 1_000))


def report_fault(where: str, fault: BaseException) -> None:
    """Say that this library failed, and that nothing else did.

    Raises:
        BaseException: ``fault``, where it is none of ours: the handler of a signal has raised it.
    """
    from .signals import is_from_signal  # Not needed while all is well.

    if is_from_signal(fault):
        raise fault
    warn(f"a fault of doow-serverless itself in {where}: {show(fault, 200)}")


def call_hook(name: str, hook: Callable[..., object], argument: object) -> None:
    """Call a user's hook; what it raises is reported and goes no further."""
    try:
        hook(argument)
    except Exception as fault:
        warn(f"{name} raised {show(fault, 200)}")

"""What became of a flush is told: to the user's hooks, for which it waits no longer than it may."""

from __future__ import annotations

import threading

from doow_serverless._process.at_work import AtWork
from doow_serverless._process.log import call_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from doow_serverless._config import Config
    from doow_serverless._outcome import Outcome
    from doow_serverless.errors import DoowError

    from .outbox import Outbox

HOOKS_WAIT_S = 0.1
"""Seconds for which a flush waits for the user's hooks, though its budget is used up."""


def tell(config: Config, outbox: Outbox, errors: list[DoowError], outcome: Outcome) -> None:
    """Report ``errors``, and call the hooks, on this thread."""
    for error in errors:
        outbox.report(error)
    if config.on_flush is not None:
        call_hook("on_flush", config.on_flush, outcome)


def tell_within(
    limit_s: float, config: Config, outbox: Outbox, errors: list[DoowError], outcome: Outcome
) -> None:
    """The same on another thread, for which no longer is waited than so many seconds.

    Where there is no hook to be called, nothing can take long, and it is done on this one.
    """
    if config.on_flush is None and (config.on_error is None or not errors):
        tell(config, outbox, errors, outcome)
        return
    done = threading.Event()

    def call() -> None:
        try:
            with AtWork():
                tell(config, outbox, errors, outcome)
        finally:
            done.set()

    if outbox.workers.submit(call):
        done.wait(max(limit_s, HOOKS_WAIT_S))
    else:
        call()

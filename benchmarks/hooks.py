"""A flood of hooks: invocations of one event each, whose ``on_flush`` is quick, slow, or hangs."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import doow_serverless as doow
from doow_serverless._delivery.hooks import MOST_WAITING

from .server import answering
from .warm import KEY, milliseconds

if TYPE_CHECKING:
    from collections.abc import Callable

INVOCATIONS = MOST_WAITING + 200
"""More than calls of hooks can wait."""
COLUMNS = ("on_flush", "median, ms", "worst, ms", "delivered", "hooks called", "dropped")


class _Reports(logging.Handler):
    """Adds up the calls of hooks that the library reports as dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        number, _, rest = record.getMessage().partition(" ")
        if rest.startswith("calls of hooks were dropped"):
            self.dropped += int(number)


def rows() -> list[tuple[str, ...]]:
    """One row for each kind of hook."""
    over = threading.Event()
    kinds: list[tuple[str, Callable[[], object]]] = [
        ("returns at once", lambda: None),
        ("takes 10 ms", partial(time.sleep, 0.01)),
        ("hangs", over.wait),
    ]
    logger = logging.getLogger("doow_serverless")
    reports = _Reports()
    logger.addHandler(reports)
    logger.propagate = False
    try:
        with answering(0.0) as url:
            found = [_row(name, hook, url) for name, hook in kinds[:2]]
            found.append(_row(*kinds[2], url, over, reports))
    finally:
        logger.removeHandler(reports)
        logger.propagate = True
    return found


def _row(
    name: str,
    hook: Callable[[], object],
    url: str,
    over: threading.Event | None = None,
    reports: _Reports | None = None,
) -> tuple[str, ...]:
    calls: list[doow.Outcome] = []

    def on_flush(outcome: doow.Outcome) -> None:
        hook()
        calls.append(outcome)

    doow.configure(KEY, endpoint=url, license_id="lic_acme", on_flush=on_flush)
    delivered = 0

    @doow.tracked
    def handler() -> None:
        nonlocal delivered
        doow.track("tokens", 1)
        delivered += doow.flush().accepted

    times = [milliseconds(handler) for _ in range(INVOCATIONS)]
    if over is not None:
        over.set()
        _await_calls(calls)
    dropped = reports.dropped if reports is not None else 0
    return (
        name,
        f"{statistics.median(times):.2f}",
        f"{max(times):.0f}",
        f"{delivered:,} of {INVOCATIONS:,}",
        f"{len(calls):,}",
        f"{dropped:,}",
    )


def _await_calls(calls: list[doow.Outcome]) -> None:
    """Until no hook is called any more."""
    before = -1
    while before < len(calls):
        before = len(calls)
        time.sleep(0.2)

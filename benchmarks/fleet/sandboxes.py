"""A sandbox: a tracker of its own that is frozen between invocations, and killed without notice."""

from __future__ import annotations

import io
import sys
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from doow_serverless import Tracker
from doow_serverless._delivery.transport import HttpTransport

from .load import EVENTS, USES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from doow_serverless._delivery.answers import Answer
    from doow_serverless._sealing import Batch

    from .clock import Clock

KEY = "dk_" + "0" * 64
WORK_S = 0.2
"""Seconds that a handler works at the most, in which the sandbox sends its backlog."""
_LOOK_S = 0.0005


class Network:
    """The library's own HTTP, out of a sandbox: while that is frozen nothing goes out, or in.

    Args:
        url: Where Doow is.
    """

    def __init__(self, url: str) -> None:
        self._http = HttpTransport(url, timeout_s=10.0)
        self._is_awake = threading.Event()
        self._is_gone = False

    def thaw(self) -> None:
        """Let what was held up go on."""
        self._is_awake.set()

    def freeze(self) -> None:
        """Hold up what comes now, and the answers to what is under way."""
        self._is_awake.clear()

    def end(self) -> None:
        """Cut off everything, and let the threads go that were held up."""
        self._is_gone = True
        self._is_awake.set()
        self._http.close_idle()

    def post(self, batch: Batch, api_key: str, *, fresh: bool = False) -> Answer:
        """As of `Transport`."""
        self._pass()
        answer = self._http.post(batch, api_key, fresh=fresh)
        self._pass()
        return answer

    def has_idle(self) -> bool:
        """As of `Transport`."""
        return self._http.has_idle()

    def abort(self, batch_id: str) -> None:
        """As of `Transport`."""
        self._http.abort(batch_id)

    def connect(self, api_key: str) -> None:
        """As of `Transport`."""
        self._http.connect(api_key)

    def _pass(self) -> None:
        self._is_awake.wait()
        if self._is_gone:
            raise ConnectionAbortedError("the sandbox is gone")


_log: ContextVar[Callable[[str], object]] = ContextVar("log")


class _Output(io.TextIOBase):
    """The standard output of all sandboxes: a line goes to the log of the one that writes it."""

    def write(self, text: str) -> int:
        """Take one line, as the library writes it in one call."""
        _log.get()(text.strip("\n"))
        return len(text)


@contextmanager
def logging_to(take: Callable[[str], object]) -> Iterator[None]:
    """Give ``take`` each line that the trackers write which are called within."""
    token = _log.set(take)
    if not isinstance(sys.__stdout__, _Output):
        sys.__stdout__ = _Output()  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        _log.reset(token)


class Sandbox:
    """One sandbox, from its cold start on.

    Args:
        url: Where Doow is.
        clock: Simulated seconds.
        log: Takes its lines.
        options: Of the tracker: the way of delivery.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        log: Callable[[str], object],
        options: dict[str, Any],
    ) -> None:
        self._network = None if options.get("delivery") == "log" else Network(url)
        self._log = log
        with logging_to(log):
            self._tracker = Tracker(
                KEY,
                endpoint=url,
                transport=self._network,
                clock=clock,
                environ={},
                on_error=lambda _: None,
                **options,
            )
        self._handler = self._tracker.tracked(self._work)

    def invoke(self, license_id: str) -> None:
        """One invocation: thawed, a handler's work, the flush before its response, and frozen."""
        if self._network is not None:
            self._network.thaw()
        with logging_to(self._log):
            self._handler(license_id)
        if self._network is not None:
            self._network.freeze()

    def _work(self, license_id: str) -> None:
        for number in range(EVENTS):
            metric, unit, attribution = USES[number % len(USES)]
            self._tracker.track(metric, license_id=license_id, unit=unit, attribution=attribution)
        ends_at = time.monotonic() + WORK_S
        while self._is_sending() and time.monotonic() < ends_at:
            time.sleep(_LOOK_S)

    def _is_sending(self) -> bool:
        return any(entry.attempts for entry in self._tracker.engine.outbox.state.kept)

    def memory(self) -> Iterator[Batch]:
        """The batches that it has in hand, while it is frozen."""
        for entry in self._tracker.engine.outbox.state.kept:
            yield entry.batch

    def kill(self) -> None:
        """Recycle it, as Lambda does without a word: what it had in memory is gone."""
        # As in a forked child, nothing of what was in hand before is this process's to deliver.
        self._tracker.engine.after_fork_in_child()
        if self._network is not None:
            self._network.end()

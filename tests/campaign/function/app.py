"""The function under fire: it does what its event says, and notes each event beside Doow.

A line of the notes is written in one call, so that it survives SIGKILL. It names the invocation,
the seconds that are left until its deadline, and what happened:

    t SERIAL          an event is about to be recorded
    e SERIAL SCOPE    it was recorded, in a transaction unless SCOPE is "-" or "signal"
    + SCOPE           a transaction has succeeded
    x SCOPE           a transaction was discarded
    !                 an exception is raised by the handler of a signal

A process that ends between the first two lines may have recorded the event, and may have sent it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import defaultdict
from contextvars import Context, copy_context
from itertools import count
from typing import TYPE_CHECKING, Any

import doow_serverless as doow

if TYPE_CHECKING:
    from collections.abc import Sequence

    Step = dict[str, Any]

NOTES = os.open(os.environ["CAMPAIGN_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WHOLE_HANDLER = "handler"
"""The scope of a handler that discards what it recorded if it raises."""

doow.configure(timeout=0.5, journal=os.environ.get("CAMPAIGN_JOURNAL") or False)


SERIALS: defaultdict[int, count[int]] = defaultdict(count)
"""By invocation, of which one may be preceded by another of the same number."""


class Refusal(Exception):
    """What handlers and transactions raise here."""


class Alarm(Exception):
    """What the handler of a signal raises, wherever the function is."""


class SlowLog:
    """Standard output with a reader that takes so many bytes a second."""

    def __init__(self, bytes_per_s: float) -> None:
        self._stream = sys.stdout
        self._bytes_per_s = bytes_per_s

    def write(self, text: str) -> int:
        time.sleep(len(text) / self._bytes_per_s)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


class Work:
    """The steps of one invocation."""

    def __init__(self, event: dict[str, Any], context: Any) -> None:
        self.number = event["number"]
        self._ends_at = time.monotonic() + context.get_remaining_time_in_millis() / 1000
        self._serials = SERIALS[self.number]
        self._transactions = count()

    def record_in_signal(self) -> None:
        """One event, outside of any invocation or transaction, whatever is interrupted."""
        Context().run(self._track, "signal", {"events": 1, "named": False, "noise": 0})

    def do(self, steps: Sequence[Step], scope: str) -> None:
        for step in steps:
            getattr(self, f"_{step['do']}")(scope, step)

    def _note(self, *words: str) -> None:
        left_s = self._ends_at - time.monotonic()
        os.write(NOTES, f"{self.number} {left_s:.4f} {' '.join(words)}\n".encode())

    def _track(self, scope: str, step: Step) -> None:
        for _ in range(step["events"]):
            serial = f"{self.number}.{next(self._serials)}"
            self._note("t", serial)
            doow.track(
                step.get("metric", "units"),
                event_id=f"event-{serial}" if step["named"] else None,
                attribution={"serial": serial},
                metadata={"noise": "." * step["noise"]} if step["noise"] else None,
            )
            self._note("e", serial, scope)

    def _transaction(self, scope: str, step: Step) -> None:
        name = str(next(self._transactions))
        inner = name if scope == "-" else f"{scope}/{name}"
        try:
            with doow.transaction():
                self.do(step["steps"], inner)
                if step["fails"]:
                    raise Refusal
        except Refusal:
            self._note("x", inner)
        else:
            self._note("+", inner)

    def _thread(self, scope: str, step: Step) -> None:
        if step["raw"]:
            # It sees no transaction, but belongs to the invocation, since only one runs.
            seen = WHOLE_HANDLER if scope.startswith(WHOLE_HANDLER) else "-"
            thread = threading.Thread(target=self._track, args=(seen, step))
        else:
            thread = threading.Thread(target=copy_context().run, args=(self._track, scope, step))
        thread.start()
        thread.join()

    def _flush(self, scope: str, step: Step) -> None:
        doow.flush()

    def _sleep(self, scope: str, step: Step) -> None:
        time.sleep(step["seconds"])

    def _refuse(self, scope: str, step: Step) -> None:
        raise Refusal

    def _work_for_ever(self, scope: str, step: Step) -> None:
        while True:
            self._track(scope, step)
            time.sleep(0.004)


_work: Work | None = None
"""That of the newest invocation."""


def _begun(event: dict[str, Any], context: Any) -> Work:
    global _work
    _work = Work(event, context)
    return _work


def _record(*_: object) -> None:
    if _work is not None:
        _work.record_in_signal()


def _raise(*_: object) -> None:
    if _work is not None:
        os.write(NOTES, f"{_work.number} 0 !\n".encode())
    raise Alarm


signal.signal(signal.SIGUSR1, _record)
signal.signal(signal.SIGUSR2, _raise)
if speed := os.environ.get("CAMPAIGN_LOG_BYTES_PER_S"):
    # What is printed, and the lines of the library.
    sys.stdout = sys.__stdout__ = SlowLog(float(speed))  # type: ignore[misc,assignment]


@doow.tracked
def flushing(event: dict[str, Any], context: Any) -> int:
    """Deliver what was recorded, also if a step raises."""
    _begun(event, context).do(event["steps"], "-")
    return len(event["steps"])


@doow.tracked(on_exception="discard")
def discarding(event: dict[str, Any], context: Any) -> int:
    """Forget what was recorded if a step raises."""
    _begun(event, context).do(event["steps"], WHOLE_HANDLER)
    return len(event["steps"])


def handler(event: dict[str, Any], context: Any) -> int:
    """One or the other, as the event says."""
    return (discarding if event["discards"] else flushing)(event, context)

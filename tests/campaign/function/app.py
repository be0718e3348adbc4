"""The function under fire: it does what its event says, and notes each event beside Doow.

A line of the notes is written in one call after Doow's own has returned, so that it survives
SIGKILL: what it says has been recorded. It names the invocation, the seconds that are left until
its deadline, and what happened:

    e SERIAL SCOPE    an event was recorded, in a transaction unless SCOPE is "-"
    + SCOPE           a transaction has succeeded
    x SCOPE           a transaction was discarded
"""

from __future__ import annotations

import os
import threading
import time
from contextvars import copy_context
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


class Refusal(Exception):
    """What handlers and transactions raise here."""


class Work:
    """The steps of one invocation."""

    def __init__(self, event: dict[str, Any], context: Any) -> None:
        self._number = event["number"]
        self._ends_at = time.monotonic() + context.get_remaining_time_in_millis() / 1000
        self._serials = count()
        self._transactions = count()

    def do(self, steps: Sequence[Step], scope: str) -> None:
        for step in steps:
            getattr(self, f"_{step['do']}")(scope, step)

    def _note(self, *words: str) -> None:
        left_s = self._ends_at - time.monotonic()
        os.write(NOTES, f"{self._number} {left_s:.4f} {' '.join(words)}\n".encode())

    def _track(self, scope: str, step: Step) -> None:
        for _ in range(step["events"]):
            serial = f"{self._number}.{next(self._serials)}"
            doow.track(
                "units",
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
            # It sees no invocation, nor a transaction.
            thread = threading.Thread(target=self._track, args=("-", step))
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


@doow.tracked
def flushing(event: dict[str, Any], context: Any) -> int:
    """Deliver what was recorded, also if a step raises."""
    Work(event, context).do(event["steps"], "-")
    return len(event["steps"])


@doow.tracked(on_exception="discard")
def discarding(event: dict[str, Any], context: Any) -> int:
    """Forget what was recorded if a step raises."""
    Work(event, context).do(event["steps"], WHOLE_HANDLER)
    return len(event["steps"])


def handler(event: dict[str, Any], context: Any) -> int:
    """One or the other, as the event says."""
    return (discarding if event["discards"] else flushing)(event, context)

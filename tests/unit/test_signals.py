"""What the handler of a signal raises, whenever it comes, passes; nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._process.signals import is_from_signal
from doow_serverless._recording.scope import current
from doow_serverless.testing import MemoryTransport
from tests.network import KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="a signal of POSIX")


class Alarm(Exception):
    """What the handler raises, as one of a timeout does."""


def ring(*_: object) -> None:
    """The handler."""
    raise Alarm


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    earlier = signal.signal(signal.SIGUSR1, ring)
    yield
    signal.signal(signal.SIGUSR1, earlier)


def ring_at_call(number: int, job: Callable[[], object]) -> tuple[list[str], object]:
    """Run ``job``, and send the signal at so manieth call of this library: the calls up to it."""
    calls: list[str] = []

    def look(frame: Any, what: str, _: object) -> None:
        name = frame.f_globals.get("__name__", "")
        if what == "call" and name.startswith("doow_serverless.") and len(calls) != number:
            calls.append(f"{name}.{called(frame)}")
            if len(calls) == number:
                signal.raise_signal(signal.SIGUSR1)

    sys.setprofile(look)
    try:
        result = job()
    except Alarm as alarm:
        result = alarm
    finally:
        sys.setprofile(None)
    return calls, result


def called(frame: Any) -> str:
    """The name of the function that is called, or that of the finalizer which does."""
    name: str = frame.f_code.co_name
    while frame is not None and name != "__del__":
        if frame.f_code.co_name == "__del__":
            name = "__del__"
        frame = frame.f_back
    return name


class Function:
    """A tracked function, and what it has seen of its own events."""

    def __init__(self, flush_at: int) -> None:
        self.transport = MemoryTransport()
        self.tracker: Any = doow.Tracker(
            KEY,
            transport=self.transport,
            license_id="lic_1",
            budget=0.1,
            flush_at=flush_at,
            dead_letter="off",
            on_error=lambda _: None,
            warm_up=False,
            environ={},
        )
        self.noted: list[str] = []
        self.handler = self.tracker.tracked(self._handle)

    def _track(self, name: str) -> None:
        self.tracker.track("tokens", metadata={"name": name})
        self.noted.append(name)

    def _handle(self, event: str) -> str:
        self._track(f"{event} before")
        with self.tracker.transaction():
            self._track(f"{event} within")
        self.noted.append(f"{event} committed")
        self._track(f"{event} after")
        return "done"

    def due(self) -> set[str]:
        """What must have arrived: what was recorded, and is in no block that was interrupted."""
        due = {name for name in self.noted if not name.endswith("committed")}
        for event in ("first", "second"):
            if f"{event} committed" not in self.noted:
                due -= {f"{event} within"}
        return due

    def arrived(self) -> list[str]:
        """What has arrived."""
        return sorted(event["metadata"]["name"] for event in self.transport.events)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("flush_at", [500, 2])
def test_at_every_call_of_an_invocation(flush_at: int) -> None:
    """The invocation ends as the application wants it; the next one is none the worse for it."""
    troubles = [copy_context().run(trouble_of, number, flush_at) for number in range(1, 1_000)]
    assert troubles.index(OVER) > 80
    assert [trouble for trouble in troubles if trouble not in (OVER, "")] == []


OVER = "there are not so many calls"


def trouble_of(number: int, flush_at: int) -> str:
    """What goes wrong if the signal comes at so manieth call."""
    function = Function(flush_at)
    calls, result = ring_at_call(number, lambda: function.handler("first"))
    if len(calls) < number:
        return OVER
    if calls[-1].endswith(("__del__", "<genexpr>")) and result == "done":
        return ""  # Python itself lets no exception out of what the collector calls.
    trouble = trouble_after(function, result)
    return f"{calls[-1]}: {trouble}" if trouble else ""


def trouble_after(function: Function, result: object) -> str:
    """What is wrong once the signal has come."""
    if not isinstance(result, Alarm):
        return f"the application did not see it: {result}"
    if current.get() is not None:
        return "the invocation has not been left"
    if function.handler("second") != "done":
        return "the next invocation"
    ends_at = time.monotonic() + 3
    while not function.due() <= set(function.arrived()) and time.monotonic() < ends_at:
        function.tracker.engine.outbox.redeliver()
        time.sleep(0.005)
    due, arrived = function.due(), function.arrived()
    if len(set(arrived)) < len(arrived):
        return f"twice: {arrived}"
    if not due <= set(arrived):
        return f"missing: {due - set(arrived)}"
    if function.tracker.engine.unattended.in_hand:
        return f"in hand: {function.tracker.engine.unattended!r}"
    return ""


def test_what_a_handler_raises_is_told_from_faults() -> None:
    """By the code that has raised it, be that a function, a method, or called by an object."""

    class Handler:
        def __call__(self, *_: object) -> None:
            raise Alarm

        def ring(self, *_: object) -> None:
            raise Alarm

    for handler in (ring, Handler(), Handler().ring, lambda *_: ring()):
        signal.signal(signal.SIGUSR1, handler)
        with pytest.raises(Alarm) as caught:
            signal.raise_signal(signal.SIGUSR1)
        assert is_from_signal(caught.value)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert not is_from_signal(caught.value)
    assert is_from_signal(KeyboardInterrupt())
    assert not is_from_signal(ValueError())


def test_a_cancelled_flush_is_not_made_again() -> None:
    """A client that goes away is no signal: nothing waits for the server on the event loop."""
    flushes: list[str] = []

    async def main() -> None:
        answered = threading.Event()
        transport = MemoryTransport(lambda _: 202 if answered.wait(5) else 500)
        tracker: Any = doow.Tracker(
            KEY, transport=transport, license_id="lic_1", warm_up=False, environ={}
        )
        tracker.engine.flush = lambda *_, **__: flushes.append("blocking")

        async def handler() -> None:
            tracker.track("tokens")

        task = asyncio.create_task(tracker.tracked(handler)())
        await asyncio.sleep(0.05)
        task.cancel()
        answered.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(transport.events) == 1

    asyncio.run(main())
    assert flushes == []

"""What the application's logging does reaches nobody who records, and is told all the same."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless._process import log
from doow_serverless._process.log import call_hook, debug, warn
from doow_serverless.local import Ingest
from doow_serverless.testing import MemoryTransport
from tests.network import KEY, refused_port

if TYPE_CHECKING:
    from collections.abc import Iterator


class Raising(logging.Handler):
    """As a handler is whose formatter asks for what only the application's own records have."""

    def emit(self, record: logging.LogRecord) -> None:
        raise KeyError("order_id")


class Filtering(logging.Handler):
    """One with a filter that reads what is there in a request alone."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise RuntimeError("Working outside of request context")


class Exiting(logging.Handler):
    """One whose formatter is cancelled, exits, or fails a test."""

    def emit(self, record: logging.LogRecord) -> None:
        raise asyncio.CancelledError


class Metering(logging.Handler):
    """One that meters the lines of the log, some of them badly."""

    def emit(self, record: logging.LogRecord) -> None:
        doow.track("log_lines", 1)
        doow.track("", 1)


@pytest.fixture(params=[Raising, Filtering, Exiting, Metering])
def handler(request: pytest.FixtureRequest) -> Iterator[logging.Handler]:
    logger, handler = logging.getLogger(), request.param()
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def _nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_said", set())


def tokens(ingest: Ingest) -> list[int]:
    """The quantities of that metric that were accepted, without what the log is metered by."""
    measured = [each for event in ingest.events() for each in event["measurements"]]
    return [each["quantity"] for each in measured if each["metric_name"] == "tokens"]


def test_an_outage_is_the_same_however_logging_is_set_up(handler: logging.Handler) -> None:
    """The result is the handler's, again and again, and what was kept is delivered afterwards."""
    with refused_port() as nobody:
        doow.configure(
            KEY, endpoint=nobody, license_id="lic_1", budget=0.3, environ={}, dead_letter="off"
        )

        @doow.tracked
        def invoked(number: int) -> int:
            doow.track("tokens", number)
            doow.track("")  # Is refused, with a warning.
            return number

        assert [invoked(number) for number in (1, 2, 3)] == [1, 2, 3]
    with Ingest() as ingest:
        doow.configure(KEY, endpoint=ingest.url, license_id="lic_1", environ={})
        invoked(4)
        ends_at = time.monotonic() + 20
        while len(counted := tokens(ingest)) < 4 and time.monotonic() < ends_at:
            time.sleep(0.01)
    assert sorted(counted) == [1, 2, 3, 4]


def test_the_exception_of_the_handler_is_not_masked(handler: logging.Handler) -> None:
    """It is the one that the caller gets."""
    transport = MemoryTransport([503] * 9)
    tracker = doow.Tracker(KEY, transport=transport, license_id="lic_1", budget=0.05, environ={})

    @tracker.tracked
    def invoked() -> None:
        tracker.track("")
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        invoked()


@pytest.mark.parametrize("kind", [Raising, Filtering, Exiting])
def test_it_is_told_where_the_process_complains(
    kind: type[logging.Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, on one line, with what the logging raised."""
    lines: list[str] = []

    class Stream:
        def write(self, text: str) -> None:
            lines.append(text)

    monkeypatch.setattr("sys.__stderr__", Stream())
    logger, handler = logging.getLogger("doow_serverless"), kind()
    logger.addHandler(handler)
    try:
        for _ in range(3):
            warn("events are late")
            debug("flushed")
    finally:
        logger.removeHandler(handler)
    assert len(lines) == 2
    assert lines[0].startswith("doow_serverless: events are late (logging raised ")
    assert lines[0].endswith(")\n")


def test_what_a_signal_raises_in_the_logging_is_not_ours() -> None:
    """A timeout of the application comes while a line is written: it must reach the handler."""

    class Timeout(Exception):
        pass

    def give_up(*_: Any) -> None:
        raise Timeout

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            signal.raise_signal(signal.SIGUSR1)

    logger, handler = logging.getLogger("doow_serverless"), Slow()
    earlier = signal.signal(signal.SIGUSR1, give_up)
    logger.addHandler(handler)
    try:
        with pytest.raises(Timeout):
            warn("events are late")
    finally:
        logger.removeHandler(handler)
        signal.signal(signal.SIGUSR1, earlier)


def test_a_broken_stderr_breaks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where neither the logging nor the stream of complaints works, the warning is dropped."""

    class Stream:
        def write(self, text: str) -> None:
            raise GeneratorExit

    monkeypatch.setattr("sys.__stderr__", Stream())
    logger, handler = logging.getLogger("doow_serverless"), Exiting()
    logger.addHandler(handler)
    try:
        warn("events are late")
    finally:
        logger.removeHandler(handler)
    assert log._said == {"events are late (logging raised CancelledError())"}


class TimeoutOfTheirs(BaseException):
    """As gevent.Timeout and greenlet.GreenletExit are, by the module that they come from."""


TimeoutOfTheirs.__module__ = "gevent.timeout"


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), TimeoutOfTheirs()])
def test_what_interrupts_the_application_passes_through_hooks(problem: BaseException) -> None:
    """Ctrl-C, and the timeouts that gevent throws into a greenlet, are for the handler."""

    def hook(_: object) -> None:
        raise problem

    with pytest.raises(type(problem)):
        call_hook("on_error", hook, None)


@pytest.mark.parametrize(
    "problem",
    [
        LookupError("mine"),
        SystemExit(3),
        GeneratorExit(),
        asyncio.CancelledError("mine"),
        BaseException("mine"),
    ],
    ids=repr,
)
def test_what_a_hook_raises_goes_no_further(
    problem: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told, by the name of the hook; one that exits ends no thread of ours."""

    def hook(_: object) -> None:
        raise problem

    call_hook("on_error", hook, None)
    assert caplog.messages == [f"on_error raised {problem!r}"]


def test_a_thread_is_not_mute_for_another() -> None:
    """While one writes, another's line is logged as well."""
    logged: list[str] = []
    writing, written = threading.Event(), threading.Event()

    class Waiting(logging.Handler):
        def createLock(self) -> None:  # noqa: N802 - it overrides
            self.lock = None

        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record.getMessage())
            if record.getMessage() == "first":
                writing.set()
                written.wait(20)

    logger, handler = logging.getLogger("doow_serverless"), Waiting()
    logger.addHandler(handler)
    try:
        thread = threading.Thread(target=warn, args=("first",))
        thread.start()
        writing.wait(20)
        warn("second")
        written.set()
        thread.join()
    finally:
        logger.removeHandler(handler)
    assert logged == ["first", "second"]

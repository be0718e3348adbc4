"""Whose an event is: a scope counts while its invocation runs, and a thread without one may not."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest

import doow_serverless as doow
from doow_serverless.testing import MemoryTransport
from tests.clock import Clock
from tests.timing import within

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "dk_" + "0" * 64


class Errors(list[str]):
    """What ``on_error`` was told."""

    def __call__(self, error: doow.errors.DoowError) -> None:
        self.append(str(error))


def new_tracker(transport: MemoryTransport, **options: Any) -> doow.Tracker:
    return doow.Tracker(KEY, transport=transport, warm_up=False, environ={}, **options)


def owners(transport: MemoryTransport) -> list[tuple[str, str]]:
    """Metric and license of each event, in the order of arrival."""
    return [(e["measurements"][0]["metric_name"], e["license_id"]) for e in transport.events]


def on_a_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def test_a_scope_that_is_carried_away_counts_no_more() -> None:
    """A context that outlives its invocation bills nobody: the default license, if any, does."""
    transport = MemoryTransport()
    tracker = new_tracker(transport, license_id="lic_default")
    kept: list[contextvars.Context] = []

    @tracker.tracked(license_id="lic_of_the_first")
    def first() -> None:
        kept.append(contextvars.copy_context())

    @tracker.tracked(license_id="lic_of_the_second")
    def second() -> None:
        doow.track("within")

    first()
    kept[0].run(doow.track, "after")
    kept[0].run(second)
    assert sorted(owners(transport)) == [("after", "lic_default"), ("within", "lic_of_the_second")]


def test_what_outlives_and_has_no_license_is_told() -> None:
    """The license of ``tracked`` counts no more, and the error says why."""
    errors = Errors()
    tracker = new_tracker(MemoryTransport(), on_error=errors)
    kept: list[contextvars.Context] = []

    @tracker.tracked(license_id="lic_1")
    def handler() -> None:
        kept.append(contextvars.copy_context())

    handler()
    kept[0].run(doow.track, "after")
    assert "no invocation that runs can be seen" in errors[0]


def test_a_thread_without_its_context_is_told_what_to_do() -> None:
    """It cannot see the license of the handler that started it."""
    errors = Errors()
    transport = MemoryTransport()
    tracker = new_tracker(transport, on_error=errors)

    @tracker.tracked(license_id="lic_1")
    def handler() -> None:
        on_a_thread(lambda: tracker.track("bare"))
        context = contextvars.copy_context()
        on_a_thread(lambda: context.run(tracker.track, "with context"))
        asyncio.run(asyncio.to_thread(tracker.track, "by asyncio"))

    handler()
    assert owners(transport) == [("with context", "lic_1"), ("by asyncio", "lic_1")]
    assert len(errors) == 1
    assert "copy_context().run" in errors[0]
    assert "asyncio.to_thread" in errors[0]


def test_on_lambda_a_thread_belongs_to_the_one_invocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """License, attribution and transaction are those of the invocation that runs."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
    transport = MemoryTransport()
    tracker = new_tracker(transport)

    @tracker.tracked(license_id="lic_1", attribution={"team": "ai"}, on_exception="discard")
    def handler(fails: bool) -> None:
        on_a_thread(lambda: tracker.track("failed" if fails else "counted"))
        on_a_thread(lambda: doow.track("failed" if fails else "counted"))
        if fails:
            raise LookupError

    handler(False)
    with pytest.raises(LookupError):
        handler(True)
    assert owners(transport) == [("counted", "lic_1")] * 2
    assert [event["attribution"] for event in transport.events] == [{"team": "ai"}] * 2


def test_on_lambda_two_at_once_are_no_certainty(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where one calls a handler on two threads: then nobody is billed for what is not his."""
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9")
    transport = MemoryTransport()
    tracker = new_tracker(transport, license_id="lic_default")

    @tracker.tracked(license_id="lic_1")
    def inner() -> None:
        on_a_thread(lambda: tracker.track("whose"))

    @tracker.tracked(license_id="lic_2")
    def outer() -> None:
        on_a_thread(inner)

    outer()
    assert owners(transport) == [("whose", "lic_default")]


class Slow(MemoryTransport):
    """Never answers, until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = threading.Event()

    def post(self, *args: Any, **named: Any) -> Any:
        self.answer.wait(20)
        return super().post(*args, **named)


def test_two_trackers_share_one_budget() -> None:
    """Nested, the outermost waits for both at once, for no longer than its own budget."""
    clock = Clock()
    one, other = MemoryTransport(), MemoryTransport()
    a = new_tracker(one, license_id="lic_a", budget=0.4, clock=clock)
    b = new_tracker(other, license_id="lic_b", budget=0.4, clock=clock)
    seen: list[int] = []

    @b.tracked
    def inner() -> None:
        b.track("inner")

    @a.tracked
    def outer() -> None:
        inner()
        seen.append(len(other.batches))
        a.track("outer")

    outer()
    assert (owners(one), owners(other)) == ([("outer", "lic_a")], [("inner", "lic_b")])
    assert seen == [0]  # The outermost flushes.


@pytest.mark.parametrize("is_async", [False, True])
def test_two_silent_trackers_wait_no_longer_than_one(is_async: bool) -> None:
    """The second is given what the first has left, and what it cannot deliver is told."""
    slow = Slow(), Slow()
    outcomes: list[doow.Outcome] = []
    options: dict[str, Any] = {
        "license_id": "lic", "budget": 1.0, "on_error": lambda _: None, "dead_letter": "off",
        "on_flush": outcomes.append,
    }  # fmt: skip
    a, b = (new_tracker(each, **options) for each in slow)

    @a.tracked
    @b.tracked
    def handler() -> None:
        a.track("a")
        b.track("b")

    async def handle() -> None:
        handler_async = a.tracked(b.tracked(work))
        await handler_async()

    async def work() -> None:
        handler_work()

    def handler_work() -> None:
        a.track("a")
        b.track("b")

    asyncio.run(handle()) if is_async else handler()
    within(sum(outcome.elapsed_s for outcome in outcomes), 1.8)  # Each alone waits a second.
    assert [sum(outcome.unsent.values()) for outcome in outcomes] == [1, 1]
    for each in slow:
        each.answer.set()


def test_a_tracker_within_the_handler_of_another() -> None:
    """Where only ``a`` tracks, what ``b`` records leaves with the flush of ``a``."""
    one, other = MemoryTransport(), MemoryTransport()
    a, b = new_tracker(one, license_id="lic_a"), new_tracker(other, license_id="lic_b")

    @a.tracked
    def handler() -> None:
        b.track("b")

    for times in (1, 2):
        handler()
        assert owners(other) == [("b", "lic_b")] * times
    b.track("after")
    b.flush()
    assert owners(other)[2:] == [("after", "lic_b")]


@pytest.mark.parametrize("flushes", [False, True])
def test_events_that_no_flush_takes_are_told_once(
    flushes: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a route's decorator stands below ``tracked``: the undecorated handler is served."""
    clock = Clock()
    tracker = new_tracker(MemoryTransport(), license_id="lic_1", clock=clock)
    with caplog.at_level(logging.WARNING, "doow_serverless"):
        for _ in range(10):
            tracker.track("stray")
            clock.now += 10.0
            if flushes:  # As a consumer of a queue does, and has noticed them.
                tracker.flush()
    told = [message for message in caplog.messages if "no flush has come" in message]
    assert len(told) == (0 if flushes else 1)
    assert all("below the decorator that registers the handler" in each for each in told)


def test_what_an_earlier_tracker_has_left_has_not_waited_since_the_machine_began(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As where a module records before the application calls ``configure()``."""
    clock = Clock()
    clock.now += 100_000.0
    earlier = new_tracker(MemoryTransport(), license_id="lic_1", clock=clock)
    later = new_tracker(MemoryTransport(), license_id="lic_1", clock=clock)
    with caplog.at_level(logging.WARNING, "doow_serverless"):
        earlier.track("at import")
        later.engine.take_over(earlier.engine)
        later.track("stray")
    assert not caplog.messages
